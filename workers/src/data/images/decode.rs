//! Encoded bytes to pixels, within limits, equal to Pillow's `convert("RGB")` or `convert("L")`.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};
use mehl_soup::sweep::image_spec::Extent;
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::transform::{PixelTransform, Pixels};

/// Raised whenever the same bytes become other pixels, or cached images are laid out otherwise: then nothing of before is found.
pub const VERSION: u32 = 1;

/// What a decoder may use beside the pixels themselves.
const WORKING_BYTES: u64 = 64 << 20;
/// Widest value of a pixel: four channels of 16 bits.
const LARGEST_PIXEL: u64 = 8;

const FORMATS: [ImageFormat; 6] =
    [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Gif, ImageFormat::Tiff];

/// Decodes one image (told by its first bytes, not its name; of several in a file the first) and turns it as its EXIF data say, if the transform wants it.
/// Alpha is dropped, grey repeated, a palette expanded, and of 16 bits the upper 8 are kept.
///
/// # Errors
/// In words, without the file's name: another format, more pixels than allowed (told from the header), or damaged data.
pub fn decode(bytes: &[u8], transform: &PixelTransform) -> Result<Pixels, String> {
    // The decoders are fuzzed and safe, but an image must not end the program even if one of them panics.
    catch_unwind(AssertUnwindSafe(|| decode_unguarded(bytes, transform)))
        .unwrap_or_else(|_| Err("the decoder failed".to_string()))
}

fn decode_unguarded(bytes: &[u8], transform: &PixelTransform) -> Result<Pixels, String> {
    if bytes.is_empty() {
        return Err("expected an image, found an empty file".to_string());
    }
    let format = image::guess_format(bytes)
        .ok()
        .filter(|format| FORMATS.contains(format))
        .ok_or_else(|| "expected a JPEG, PNG, WebP, BMP, GIF or TIFF image, found other data".to_string())?;
    let (mut image, orientation) = match format {
        ImageFormat::Jpeg => decode_jpeg(bytes, transform)?,
        _ => decode_other(bytes, format, transform)?,
    };
    // An image with broken EXIF data is an image all the same, as in Pillow.
    if let Some(orientation) = orientation.filter(|_| transform.orientation) {
        image.apply_orientation(orientation);
    }
    let extent = Extent { height: image.height() as usize, width: image.width() as usize };
    let (values, channels) = color_values(image)?;
    Ok(Pixels { extent, channels: transform.channels, values: with_channels(values, channels, transform.channels) })
}

fn refused(error: impl std::fmt::Display) -> String {
    format!("cannot be decoded: {error}")
}

/// That an image is not larger than allowed, told from its header.
fn check_size(width: u64, height: u64, transform: &PixelTransform) -> Result<(), String> {
    let pixels = width * height;
    if pixels == 0 || pixels > transform.max_pixels {
        return Err(format!(
            "expected 1 to {} pixels (data.image.max_pixels), found {height} x {width}",
            transform.max_pixels
        ));
    }
    Ok(())
}

/// By the decoder that the `image` crate uses, without its copy of the file and its three passes over the header.
fn decode_jpeg(bytes: &[u8], transform: &PixelTransform) -> Result<(DynamicImage, Option<Orientation>), String> {
    whole_jpeg(bytes)?;
    let options = DecoderOptions::default().set_strict_mode(false).set_max_width(usize::MAX).set_max_height(usize::MAX);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(refused)?;
    let (width, height) = decoder.dimensions().ok_or_else(|| refused("no size in the header"))?;
    check_size(width as u64, height as u64, transform)?;
    let grey = decoder.input_colorspace() == Some(ColorSpace::Luma);
    let color = if grey { ColorSpace::Luma } else { ColorSpace::RGB };
    decoder.set_options(decoder.options().jpeg_set_out_colorspace(color));
    let mut values = vec![0; width * height * if grey { 1 } else { 3 }];
    decoder.decode_into(&mut values).map_err(refused)?;
    let orientation = decoder.exif().and_then(|exif| Orientation::from_exif_chunk(exif));
    let (width, height) = (width as u32, height as u32);
    let image = if grey {
        GrayImage::from_raw(width, height, values).map(DynamicImage::from)
    } else {
        RgbImage::from_raw(width, height, values).map(DynamicImage::from)
    };
    Ok((image.ok_or_else(|| refused("fewer values than pixels"))?, orientation))
}

/// All formats but JPEG.
fn decode_other(
    bytes: &[u8],
    format: ImageFormat,
    transform: &PixelTransform,
) -> Result<(DynamicImage, Option<Orientation>), String> {
    let mut decoder = ImageReader::with_format(Cursor::new(bytes), format).into_decoder().map_err(refused)?;
    let (width, height) = decoder.dimensions();
    check_size(width.into(), height.into(), transform)?;
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(transform.max_pixels.saturating_mul(LARGEST_PIXEL).saturating_add(WORKING_BYTES));
    decoder.set_limits(limits).map_err(refused)?;
    let orientation = decoder.orientation().ok();
    Ok((DynamicImage::from_decoder(decoder).map_err(refused)?, orientation))
}

/// The image without alpha, one byte a value: values, and 1 or 3 channels.
fn color_values(image: DynamicImage) -> Result<(Vec<u8>, usize), String> {
    let upper = |value: &u16| (value >> 8) as u8;
    Ok(match image {
        DynamicImage::ImageLuma8(image) => (image.into_raw(), 1),
        DynamicImage::ImageLumaA8(image) => (image.as_raw().iter().step_by(2).copied().collect(), 1),
        DynamicImage::ImageRgb8(image) => (image.into_raw(), 3),
        DynamicImage::ImageRgba8(image) => (without_alpha(image.as_raw(), |value| *value), 3),
        DynamicImage::ImageLuma16(image) => (image.as_raw().iter().map(upper).collect(), 1),
        DynamicImage::ImageLumaA16(image) => (image.as_raw().iter().step_by(2).map(upper).collect(), 1),
        DynamicImage::ImageRgb16(image) => (image.as_raw().iter().map(upper).collect(), 3),
        DynamicImage::ImageRgba16(image) => (without_alpha(image.as_raw(), upper), 3),
        other => return Err(format!("expected 8 or 16 bits per value, found {:?}", other.color())),
    })
}

fn without_alpha<T>(values: &[T], byte: impl Fn(&T) -> u8) -> Vec<u8> {
    values.chunks_exact(4).flat_map(|pixel| [byte(&pixel[0]), byte(&pixel[1]), byte(&pixel[2])]).collect()
}

/// Grey repeated, or the luminance of ITU-R 601-2 in Pillow's fixed point.
fn with_channels(values: Vec<u8>, found: usize, wanted: usize) -> Vec<u8> {
    match (found, wanted) {
        (1, 3) => values.iter().flat_map(|&value| [value; 3]).collect(),
        (3, 1) => {
            let luminance = |pixel: &[u8]| {
                let weighted = u32::from(pixel[0]) * 19595 + u32::from(pixel[1]) * 38470 + u32::from(pixel[2]) * 7471;
                ((weighted + 0x8000) >> 16) as u8
            };
            values.chunks_exact(3).map(luminance).collect()
        }
        _ => values,
    }
}

/// That a JPEG has its end: the decoder fills what is missing of a truncated one with grey, and Pillow refuses it.
fn whole_jpeg(bytes: &[u8]) -> Result<(), String> {
    const START_OF_SCAN: u8 = 0xDA;
    const END_OF_IMAGE: u8 = 0xD9;
    let truncated = || "cannot be decoded: the JPEG data are truncated".to_string();
    // Segments before the first scan carry their length; a thumbnail in one of them has an end of its own.
    let mut at = 2;
    loop {
        let marker = bytes.get(at..at + 2).ok_or_else(truncated)?;
        match marker {
            [0xFF, 0xFF] => at += 1,
            [0xFF, START_OF_SCAN] => break,
            [0xFF, 0x01 | 0xD0..=0xD8] => at += 2,
            [0xFF, _] => {
                let length = bytes.get(at + 2..at + 4).ok_or_else(truncated)?;
                at += 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
            }
            // Bytes between segments are tolerated, here as in the decoder.
            _ => at += 1,
        }
    }
    // Within a scan 0xFF is always followed by zero, a restart or a true marker.
    let rest = &bytes[at.min(bytes.len())..];
    match rest.windows(2).rev().any(|pair| pair == [0xFF, END_OF_IMAGE]) {
        true => Ok(()),
        false => Err(truncated()),
    }
}

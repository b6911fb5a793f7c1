//! Images from folders, CSV and Parquet: order, classes, what is refused and what is skipped.

use std::fs;
use std::os::unix::fs::symlink;

use crate::support::fixture;
use crate::support::images::{Scene, flat, folder, labels, picture, values};
use mehl_soup_worker::data::{Data, Split};
use serde_json::json;
use tch::{Device, Kind, Tensor};

const PLAIN: &str = "image = { resize = [8, 8], mean = 0, std = 1 }\n";

#[test]
fn a_folder_is_read_by_class_and_path() {
    let scene = Scene::new();
    let root = scene.path("learn");
    folder(&root, &["b", "a"], 3, 0);
    fs::create_dir_all(root.join("a/deeper")).unwrap();
    picture(9, 9, 50).save(root.join("a/deeper/x.JPG")).unwrap();
    fs::write(root.join("a/readme.txt"), "text").unwrap();
    fs::write(root.join("a/.hidden.png"), "no image").unwrap();
    fs::create_dir(root.join(".git")).unwrap();
    let data = scene.load(&format!("learn = 'learn'\nselect_fraction = 0.3\n{PLAIN}")).unwrap();
    assert!(data.notes.iter().any(|note| note.contains("1 files that are no images")), "{:?}", data.notes);
    assert_eq!((data.learn.samples(), data.select.samples()), (5, 2));
    // What was set aside and what was not are together what is there: nothing is lost by cutting.
    let mut all = [labels(&data.learn), labels(&data.select)].concat();
    all.sort_unstable();
    assert_eq!(all, [0, 0, 0, 0, 1, 1, 1]);

    let whole = scene.load(&format!("learn = 'learn'\nselect = 'learn'\n{PLAIN}")).unwrap();
    assert_eq!(labels(&whole.learn), [0, 0, 0, 0, 1, 1, 1]);
    assert!(whole.notes.iter().any(|note| note.contains("share 7 samples")));
    let rows = |split| values(split).chunks(192).map(<[f32]>::to_vec).collect::<Vec<_>>();
    let (every, mut parts) = (rows(&whole.learn), [rows(&data.learn), rows(&data.select)].concat());
    assert_eq!(parts.len(), 7);
    parts.retain(|row| !every.contains(row));
    assert!(parts.is_empty());
    // Batches in any order are the rows of the whole.
    let (batch, of) = whole.learn.batch(&[5, 0, 5], Device::Cpu).unwrap();
    assert_eq!(flat(&batch[0]), [every[5].clone(), every[0].clone(), every[5].clone()].concat());
    assert_eq!(Vec::<i64>::try_from(of).unwrap(), [1, 0, 1]);
    let part = values(&data.select).chunks(192).next().unwrap().to_vec();
    let (first, _) = data.select.batch(&[0], Device::Cpu).unwrap();
    assert_eq!(flat(&first[0]), part);
}

/// What is done for a GPU, on the only device that every machine has.
#[test]
fn batches_of_what_is_kept_on_a_device_are_the_same() {
    let scene = Scene::new();
    folder(&scene.path("learn"), &["a", "b"], 4, 0);
    folder(&scene.path("test"), &["a", "b"], 2, 9);
    let mut data = scene.load(&format!("learn = 'learn'\ntest = 'test'\nselect_fraction = 0.3\n{PLAIN}")).unwrap();
    let of = |split: &Split| {
        let (batch, labels) = split.batch(&[1, 0, 1], Device::Cpu).unwrap();
        let (range, _) = split.range(0, 2, Device::Cpu).unwrap();
        (flat(&batch[0]), Vec::<i64>::try_from(labels).unwrap(), flat(&range[0]), values(split))
    };
    let all = |data: &Data| [&data.learn, &data.select, data.test.as_ref().unwrap()].map(of);
    let expected = all(&data);
    let image = 3 * 8 * 8 + 8;
    assert_eq!((data.learn.bytes(), data.select.bytes()), (6 * image, 2 * image));
    // Learn does not fit: select and test are kept without it. Then all are.
    for budget in [6 * image, 100 * image] {
        data.keep_on(Device::Cpu, budget - 1).unwrap();
        assert_eq!(all(&data), expected);
    }
    // So are tensors.
    let inputs = Tensor::arange(12, (Kind::Float, Device::Cpu)).view([6, 2]);
    let mut split = Split::of_tensors(vec![inputs], Tensor::arange(6, (Kind::Int64, Device::Cpu)));
    let expected = of(&split);
    split.keep_on(Device::Cpu).unwrap();
    assert_eq!((of(&split), split.bytes()), (expected, 6 * (8 + 8)));
}

#[test]
fn values_are_the_pixels_normalised() {
    let mut scene = Scene::new();
    let image = picture(8, 8, 4);
    for class in ["a", "b"] {
        fs::create_dir_all(scene.path("learn").join(class)).unwrap();
        image.save(scene.path("learn").join(class).join("0.png")).unwrap();
    }
    let data =
        "learn = 'learn'\nselect = 'learn'\nimage = { resize = [8, 8], mean = [0.1, 0.2, 0.3], std = [0.5, 0.25, 2] }";
    let found = values(&scene.load(data).unwrap().learn);
    for (x, y, pixel) in image.enumerate_pixels() {
        for (c, (mean, std)) in [(0.1, 0.5), (0.2, 0.25), (0.3, 2.0)].into_iter().enumerate() {
            let expected = (f64::from(pixel.0[c]) / 255.0 - mean) / std;
            let at = c * 64 + y as usize * 8 + x as usize;
            assert!((f64::from(found[at]) - expected).abs() < 1e-6, "{at}: {} {expected}", found[at]);
        }
    }
    scene.input = Some(vec![1, 8, 8]);
    let grey = scene.load("learn = 'learn'\nselect = 'learn'\nimage = { resize = [8, 8], mean = 0, std = 1 }").unwrap();
    assert_eq!(grey.learn.sample_shapes(), [(Kind::Float, vec![1, 8, 8])]);
    let pixel = image.get_pixel(0, 0).0.map(f64::from);
    let luminance = 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2];
    assert!((f64::from(values(&grey.learn)[0]) * 255.0 - luminance).abs() < 1.0);
}

#[test]
fn the_transform_is_told_or_said_to_be_usual() {
    let mut scene = Scene::new();
    folder(&scene.path("learn"), &["a", "b"], 2, 0);
    let usual = scene.load("learn = 'learn'\nselect = 'learn'").unwrap();
    assert!(usual.notes.iter().any(|note| note.contains("nothing says how images are prepared")));
    let model = scene.path("model");
    fs::create_dir(&model).unwrap();
    let write = |json: serde_json::Value| fs::write(model.join("preprocessor_config.json"), json.to_string()).unwrap();
    scene.model = Some(model.clone());
    write(json!({"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}}));
    let told = scene.load("learn = 'learn'\nselect = 'learn'").unwrap();
    assert!(!told.notes.iter().any(|note| note.contains("nothing says")), "{:?}", told.notes);
    assert_ne!(told.entries[0].hash, usual.entries[0].hash);

    write(json!({"image_processor_type": "ViTImageProcessor", "size": 16}));
    scene.refuses(
        "learn = 'learn'",
        &["preprocessor_config.json", "expected images of 8 x 8", "found 16 x 16", "data.image.size"],
    );
    scene.load("learn = 'learn'\nselect = 'learn'\nimage.size = 8").unwrap();
    write(json!({"image_processor_type": "CLIPImageProcessor", "do_center_crop": false}));
    scene.refuses("learn = 'learn'", &["preprocessor_config.json", "expected a crop or an exact size"]);
    for (json, says) in [
        (json!({"image_processor_type": "ViTImageProcessor", "size": {"longest_edge": 8}}), "size: expected"),
        (json!({"image_processor_type": "ViTImageProcessor", "size": 0}), "size: expected"),
        (json!({"image_processor_type": "ViTImageProcessor", "size": 8, "resample": 5}), "resample: expected"),
        (
            json!({"image_processor_type": "ViTImageProcessor", "size": 8, "image_std": [1, 0, 1]}),
            "image_std: expected",
        ),
        (json!({"image_processor_type": "ViTImageProcessor", "size": 8, "do_pad": true}), "do_pad: expected false"),
        (json!({"image_processor_type": 3}), "image_processor_type: expected a text"),
    ] {
        write(json);
        scene.refuses("learn = 'learn'", &["preprocessor_config.json", says]);
    }
    fs::write(model.join("preprocessor_config.json"), "{").unwrap();
    scene.refuses("learn = 'learn'", &["preprocessor_config.json", "not JSON"]);
    fs::remove_file(model.join("preprocessor_config.json")).unwrap();
    scene.config = Some(json!({"pretrained_cfg": {"input_size": [3, 8, 8], "crop_mode": "border"}}));
    scene.refuses("learn = 'learn'", &["config.json", "pretrained_cfg.crop_mode", "border"]);
    scene.config = Some(json!({"pretrained_cfg": {"input_size": [3, 9, 9]}}));
    scene.refuses("learn = 'learn'", &["config.json", "expected images of 8 x 8", "found 9 x 9"]);
    scene.load("learn = 'learn'\nselect = 'learn'\nimage.size = 8").unwrap();
}

#[test]
fn classes_are_those_of_the_model() {
    let mut scene = Scene::new();
    folder(&scene.path("learn"), &["bee", "ant"], 1, 0);
    let both = format!("learn = 'learn'\nselect = 'learn'\n{PLAIN}");
    let data = scene.load(&both).unwrap();
    assert_eq!(labels(&data.learn), [0, 1]);
    // Nothing but the folders told the classes, so there must be as many as outputs.
    let refused = data.check_labels("labels", 3).unwrap_err().to_string();
    assert!(
        refused.contains("learn") && refused.contains("expected 3 classes") && refused.contains("found 2"),
        "{refused}"
    );
    data.check_labels("labels", 2).unwrap();
    // By name, in the model's order.
    scene.config = Some(json!({"id2label": {"0": "bee", "1": "cat", "2": "ant"}}));
    assert_eq!(labels(&scene.load(&both).unwrap().learn), [2, 0]);
    scene.config = Some(json!({"label2id": {"bee": 0, "cat": "1", "ant": 2}}));
    assert_eq!(labels(&scene.load(&both).unwrap().learn), [2, 0]);
    scene.config = Some(json!({"label_names": ["bee", "ant"]}));
    assert_eq!(labels(&scene.load(&both).unwrap().learn), [1, 0]);
    scene.config = Some(json!({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}));
    assert_eq!(labels(&scene.load(&both).unwrap().learn), [0, 1]);
    scene.config = Some(json!({"id2label": {"0": "bee", "1": "cat"}}));
    scene.refuses(&both, &["learn", "class `ant`", "2 classes of id2label of config.json"]);
    // The specification has the last word.
    let stated = format!("classes = ['x', 'ant', 'bee']\n{both}");
    assert_eq!(labels(&scene.load(&stated).unwrap().learn), [1, 2]);
    assert!(scene.load(&stated).unwrap().check_labels("labels", 2).is_err());

    scene.config = None;
    folder(&scene.path("fewer"), &["ant"], 1, 7);
    let fewer = format!("learn = 'learn'\nselect = 'fewer'\n{PLAIN}");
    scene.refuses(&fewer, &["fewer", "class `bee` is missing", "learn"]);
    scene.refuses(&format!("learn = 'fewer'\nselect = 'learn'\n{PLAIN}"), &["learn", "class `bee`", "fewer"]);
    scene.refuses(
        &format!("learn = 'learn'\nselect = 'learn'\ntest = 'fewer'\n{PLAIN}"),
        &["fewer", "class `bee` is missing"],
    );
    assert_eq!(labels(&scene.load(&format!("allow_missing_classes = true\n{fewer}")).unwrap().select), [0]);
    fs::create_dir(scene.path("learn/wasp")).unwrap();
    scene.refuses(&both, &["learn", "class `wasp` has no image"]);
    assert_eq!(labels(&scene.load(&format!("allow_missing_classes = true\n{both}")).unwrap().learn), [0, 1]);

    folder(&scene.path("numbers"), &["2", "10", "1"], 1, 0);
    let numbers = scene.load(&format!("learn = 'numbers'\nselect = 'numbers'\n{PLAIN}")).unwrap();
    assert_eq!(labels(&numbers.learn), [0, 1, 2]);
    assert!(numbers.notes.iter().any(|note| note.contains("sorted as text")), "{:?}", numbers.notes);
}

#[test]
fn folders_that_are_no_source() {
    let scene = Scene::new();
    fs::create_dir(scene.path("empty")).unwrap();
    scene.refuses("learn = 'empty'", &["empty", "expected one folder a class"]);
    fs::create_dir_all(scene.path("hollow/a")).unwrap();
    scene.refuses("learn = 'hollow'", &["hollow", "expected images, found none"]);
    fs::create_dir(scene.path("loose")).unwrap();
    picture(3, 3, 1).save(scene.path("loose/1.png")).unwrap();
    scene.refuses("learn = 'loose'", &["loose", "found no folder and 1 images"]);
    scene.refuses("learn = 'nowhere'", &["nowhere", "No such file"]);
    folder(&scene.path("learn"), &["a", "b"], 1, 0);
    fs::write(scene.path("t.safetensors"), "x").unwrap();
    scene.refuses("learn = 'learn'\nselect = 't.safetensors'", &["t.safetensors", "expected images as", "learn"]);
}

#[test]
fn a_csv_names_files_within_its_folder() {
    let scene = Scene::new();
    folder(&scene.path("set/pictures"), &["a", "b"], 2, 0);
    let csv = |text: &str| fs::write(scene.path("set/learn.csv"), text).unwrap();
    let load = || scene.load(&format!("learn = 'set/learn.csv'\nselect = 'set/learn.csv'\n{PLAIN}"));
    csv("id,File_Name,Label\n1,pictures/b/0.png,1\n2,pictures/a/1.png,0\n3,./pictures/a/0.png,3\n");
    assert_eq!(labels(&load().unwrap().learn), [1, 0, 3]);
    csv("path,class\n\"pictures/b/0.png\",dog\npictures/a/1.png,cat\n");
    let named = load().unwrap();
    assert_eq!(labels(&named.learn), [1, 0]);
    assert!(named.check_labels("labels", 3).is_err());
    // Columns under other names.
    csv("where,what,path,label\npictures/b/0.png,dog,x,1\n");
    let stated =
        format!("learn = 'set/learn.csv'\nselect = 'set/learn.csv'\ninputs = 'where'\nlabels = 'what'\n{PLAIN}");
    assert_eq!(labels(&scene.load(&stated).unwrap().learn), [0]);

    picture(9, 9, 9).save(scene.path("outside.png")).unwrap();
    symlink(scene.path("outside.png"), scene.path("set/link.png")).unwrap();
    let outside = scene.path("outside.png").display().to_string();
    for path in ["../outside.png", "link.png", "pictures/../../outside.png", "../nothing.png", &outside, "/etc/passwd"]
    {
        csv(&format!("path,label\npictures/a/0.png,0\n{path},1\n"));
        let data = "learn = 'set/learn.csv'\nskip_unreadable = true";
        scene.refuses(data, &["learn.csv", "line 3", path, "points outside"]);
    }
    let refused = |text: &str, says: &[&str]| {
        csv(text);
        scene.refuses("learn = 'set/learn.csv'", says);
    };
    refused(
        "name,label\nx,1\n",
        &["learn.csv", "expected a column of paths named path or file", "found only name, label"],
    );
    refused("path,kind\nx,1\n", &["learn.csv", "expected a column of labels", "found only path, kind"]);
    refused("path,label\npictures/a/0.png\n", &["learn.csv", "not a CSV file"]);
    refused("path,label\npictures/a/0.png,\n", &["learn.csv", "line 2", "expected a path and a label"]);
    refused("path,label\npictures/a/0.png,0\npictures/a/1.png,-2\n", &["learn.csv", "line 3", "found -2"]);
    refused("path,label\n", &["learn.csv", "expected images, found none"]);
    refused("path,label\npictures/a/none.png,0\n", &["none.png", "No such file", "data.skip_unreadable"]);
    refused("path,label\npictures/a,0\n", &["pictures/a", "expected a regular file"]);
}

#[test]
fn parquet_files_as_hugging_face_writes_them() {
    let mut scene = Scene::new();
    for name in ["data", "plain", "holes"] {
        fs::create_dir_all(scene.path(name)).unwrap();
        let file = format!("{name}.parquet");
        fs::copy(fixture("images/parquet").join(&file), scene.path(name).join(&file)).unwrap();
    }
    fs::write(scene.path("data/README.md"), "about").unwrap();
    let load = |scene: &Scene, rest: &str| scene.load(&format!("{rest}{PLAIN}"));
    let both = |name: &str| format!("learn = '{name}'\nselect = '{name}'\n");
    let data = load(&scene, &both("data")).unwrap();
    assert_eq!(labels(&data.learn), [2, 0, 1, 1, 0, 2, 1]);
    assert!(data.check_labels("labels", 4).is_err());
    // By name where the model has names, by number where it has none of them.
    scene.config = Some(json!({"id2label": {"0": "cat", "1": "bee", "2": "ant", "3": "wasp"}}));
    assert_eq!(labels(&load(&scene, &both("data/data.parquet")).unwrap().learn), [0, 2, 1, 1, 2, 0, 1]);
    scene.config = Some(json!({"id2label": {"0": "x", "1": "y", "2": "z"}}));
    let by_number = load(&scene, &both("data")).unwrap();
    assert_eq!(labels(&by_number.learn), [2, 0, 1, 1, 0, 2, 1]);
    assert!(by_number.notes.iter().any(|note| note.contains("none of its class names")), "{:?}", by_number.notes);
    scene.config = Some(json!({"id2label": {"0": "cat", "1": "bee"}}));
    scene.refuses(&format!("{}{PLAIN}", both("data")), &["data", "class `ant`", "id2label"]);
    scene.config = None;
    // Bare bytes and texts, under other names; the images are the same ones.
    let plain = load(&scene, &format!("inputs = 'picture'\nlabels = 'kind'\n{}", both("plain/plain.parquet"))).unwrap();
    assert_eq!(labels(&plain.learn), labels(&data.learn));
    assert_eq!(values(&plain.learn), values(&data.learn));
    scene.refuses(&both("plain"), &["plain.parquet", "image", "expected a column named", "picture, kind"]);
    scene
        .refuses(&format!("labels = 'image'\n{}", both("holes")), &["holes.parquet", "names"].map(|_| "holes.parquet"));
    scene.refuses(&both("holes"), &["holes.parquet, row group 0, row 2", "expected an image's bytes"]);
    let skipped = load(&scene, &format!("skip_unreadable = true\n{}", both("holes"))).unwrap();
    assert_eq!(labels(&skipped.learn), [0, 1]);
    assert!(skipped.notes.iter().any(|note| note.contains("1 of 3 images cannot be read")));
    // Damaged files.
    let whole = fs::read(fixture("images/parquet/data.parquet")).unwrap();
    for (name, bytes) in [("cut", &whole[..whole.len() / 2]), ("empty", &whole[..0]), ("text", b"PAR1 no".as_slice())] {
        fs::write(scene.path(&format!("{name}.parquet")), bytes).unwrap();
        scene.refuses(&format!("learn = '{name}.parquet'"), &[&format!("{name}.parquet"), "not a Parquet file"]);
    }
    for at in [200, whole.len() / 3, whole.len() - 300] {
        let mut broken = whole.clone();
        broken[at..at + 16].iter_mut().for_each(|byte| *byte ^= 0xA5);
        fs::write(scene.path("broken.parquet"), broken).unwrap();
        // Somewhere it is noticed, or it changed only an image.
        if let Err(error) = load(&scene, "learn = 'broken.parquet'\n") {
            assert!(error.contains("broken.parquet"), "{error}");
        }
    }
}

#[test]
fn images_that_cannot_be_read() {
    let scene = Scene::new();
    folder(&scene.path("learn"), &["a", "b"], 2, 0);
    let sound = scene.load(&format!("learn = 'learn'\nselect = 'learn'\n{PLAIN}")).unwrap();
    for (name, says) in [
        ("empty.jpg", "empty file"),
        ("truncated.jpg", "end too early"),
        ("text.jpg", "expected a JPEG, PNG or WebP image"),
        ("truncated.png", "cannot be decoded"),
        ("truncated.webp", "cannot be decoded"),
        ("bitmap.png", "expected a JPEG, PNG or WebP image"),
        ("bomb.png", "found 60000 x 60000"),
    ] {
        let bad = scene.path("learn/a").join(name);
        fs::copy(fixture("images/bad").join(name), &bad).unwrap();
        let data = format!("learn = 'learn'\nselect = 'learn'\n{PLAIN}");
        // Twice: what is known of it must not depend on the cache.
        for _ in 0..2 {
            scene.refuses(&data, &[name, says, "data.skip_unreadable"]);
        }
        for _ in 0..2 {
            let skipped = scene.load(&format!("skip_unreadable = true\n{data}")).unwrap();
            assert_eq!(labels(&skipped.learn), [0, 0, 1, 1]);
            assert_eq!(values(&skipped.learn), values(&sound.learn));
            let note = skipped.notes.iter().find(|note| note.contains("1 of 5 images cannot be read")).unwrap();
            assert!(note.contains(name) && note.contains(says), "{note}");
            // The hash is that of the samples that are used.
            assert_eq!(skipped.entries, sound.entries);
        }
        scene.refuses(&data, &[name, says, "data.skip_unreadable"]);
        fs::remove_file(bad).unwrap();
    }
    scene.refuses("learn = 'learn'\nimage.max_pixels = 95", &["0.png", "expected 1 to 95 pixels", "found 8 x 12"]);
    fs::create_dir_all(scene.path("all/a")).unwrap();
    fs::write(scene.path("all/a/x.png"), "x").unwrap();
    scene.refuses("learn = 'all'\nskip_unreadable = true", &["x.png", "none of the 1 images"]);
}

#[test]
fn the_hash_is_that_of_contents_classes_and_transform() {
    let scene = Scene::new();
    folder(&scene.path("learn"), &["a", "b"], 2, 0);
    let hash =
        |rest: &str| scene.load(&format!("learn = 'learn'\nselect = 'learn'\n{rest}")).unwrap().entries[0].hash.clone();
    let plain = hash(PLAIN);
    assert_eq!(plain, hash(PLAIN));
    let mut seen = vec![plain.clone()];
    for other in [
        "image = { resize = [8, 8], mean = 0, std = 2 }",
        "image = { resize = [8, 8], mean = 0, std = 1, interpolation = 'nearest' }",
        "classes = ['b', 'a']\nimage = { resize = [8, 8], mean = 0, std = 1 }",
    ] {
        let found = hash(other);
        assert!(!seen.contains(&found), "{other}");
        seen.push(found);
    }
    // Where files lie and how they are called is no part of it.
    fs::rename(scene.path("learn/a/0.png"), scene.path("learn/a/00.png")).unwrap();
    assert_eq!(plain, hash(PLAIN));
    fs::copy(scene.path("learn/b/0.png"), scene.path("learn/a/00.png")).unwrap();
    assert_ne!(plain, hash(PLAIN));
}

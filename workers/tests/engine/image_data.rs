//! Images from folders, CSV and Parquet: order, classes, what is refused and what is skipped.

use std::fs;
use std::os::unix::fs::symlink;

use crate::support::fixture;
use crate::support::images::{Scene, flat, folder, labels, picture, values};
use mehl_soup_worker::data::{Batch, Data, Split};
use mehl_soup_worker::objectives::Classification;
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
    assert!(
        data.notes.iter().any(|note| note.contains("1 files in class folders that are not images")),
        "{:?}",
        data.notes
    );
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
    let Batch { inputs: batch, targets: of, .. } = whole.learn.batch(&[5, 0, 5], Device::Cpu).unwrap();
    assert_eq!(flat(batch.only().unwrap()), [every[5].clone(), every[0].clone(), every[5].clone()].concat());
    assert_eq!(Vec::<i64>::try_from(of).unwrap(), [1, 0, 1]);
    let part = values(&data.select).chunks(192).next().unwrap().to_vec();
    let first = data.select.batch(&[0], Device::Cpu).unwrap().inputs;
    assert_eq!(flat(first.only().unwrap()), part);
}

/// What is done for a GPU, on the only device that every machine has.
#[test]
fn batches_of_what_is_kept_on_a_device_are_the_same() {
    let scene = Scene::new();
    folder(&scene.path("learn"), &["a", "b"], 4, 0);
    folder(&scene.path("test"), &["a", "b"], 2, 9);
    let mut data = scene.load(&format!("learn = 'learn'\ntest = 'test'\nselect_fraction = 0.3\n{PLAIN}")).unwrap();
    let of = |split: &Split| {
        let Batch { inputs: batch, targets: labels, .. } = split.batch(&[1, 0, 1], Device::Cpu).unwrap();
        let range = split.range(0, 2, Device::Cpu).unwrap().inputs;
        (flat(batch.only().unwrap()), Vec::<i64>::try_from(labels).unwrap(), flat(range.only().unwrap()), values(split))
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
    let mut split =
        Split::of_tensors(vec![("inputs".to_string(), inputs)], Tensor::arange(6, (Kind::Int64, Device::Cpu)));
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
    assert!(usual.notes.iter().any(|note| note.contains("assumed: images are prepared as usual for `vit`")));
    let model = scene.path("model");
    fs::create_dir(&model).unwrap();
    let write = |json: serde_json::Value| fs::write(model.join("preprocessor_config.json"), json.to_string()).unwrap();
    scene.model = Some(model.clone());
    write(json!({"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}}));
    let told = scene.load("learn = 'learn'\nselect = 'learn'").unwrap();
    assert!(!told.notes.iter().any(|note| note.contains("assumed: images")), "{:?}", told.notes);
    // What is usual is what the processor does by default.
    assert_eq!(told.entries[0].hash, usual.entries[0].hash);

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
    let refused = Classification::check_labels(&data, "labels", 3).unwrap_err().to_string();
    assert!(
        refused.contains("learn") && refused.contains("expected 3 classes") && refused.contains("found 2"),
        "{refused}"
    );
    Classification::check_labels(&data, "labels", 2).unwrap();
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
    scene.refuses(&both, &["learn", "class `ant`", "2 classes of id2label of config.json", "did you mean `"]);
    // The specification has the last word.
    let stated = format!("classes = ['x', 'ant', 'bee']\n{both}");
    assert_eq!(labels(&scene.load(&stated).unwrap().learn), [1, 2]);
    assert!(Classification::check_labels(&scene.load(&stated).unwrap(), "labels", 2).is_err());

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
fn class_maps_that_do_not_name_each_output_once_are_refused() {
    let mut scene = Scene::new();
    folder(&scene.path("learn"), &["bee", "ant"], 1, 0);
    let both = format!("learn = 'learn'\nselect = 'learn'\n{PLAIN}");
    for (map, says) in [
        (json!({"id2label": {"0": "ant", "1": "bee", "2": "bee"}}), "`bee` for outputs 1 and 2"),
        (json!({"id2label": ["ant", "bee"]}), "found a list"),
        (json!({"id2label": {"1": "ant", "2": "bee"}}), "found none for 0"),
        (json!({"label_names": ["ant", "ant"]}), "`ant` for outputs 0 and 1"),
    ] {
        scene.config = Some(map);
        scene.refuses(&both, &["config.json", says]);
        // The specification has the last word, and numbers need no names.
        let stated = format!("classes = ['bee', 'ant']\n{both}");
        assert_eq!(labels(&scene.load(&stated).unwrap().learn), [1, 0]);
    }
    // A model of ImageNet names two outputs `crane`: its labels are given by number.
    scene.config = Some(json!({"id2label": {"0": "wren", "1": "crane", "2": "crane"}}));
    fs::write(scene.path("learn.csv"), "path,label\nlearn/bee/0.png,2\nlearn/ant/0.png,1\n").unwrap();
    let by_number = format!("learn = 'learn.csv'\nselect = 'learn.csv'\n{PLAIN}");
    assert_eq!(labels(&scene.load(&by_number).unwrap().learn), [2, 1]);
}

/// A model that `ImageFolder` trained on folders 0 to 10 names its third output `10`.
#[test]
fn numbers_in_a_table_are_names_where_the_model_has_them() {
    let mut scene = Scene::new();
    folder(&scene.path("pictures"), &["x"], 3, 0);
    let file = scene.path("t.csv");
    let table = |labels: [&str; 3]| {
        let rows: String = labels.iter().enumerate().map(|(i, l)| format!("pictures/x/{i}.png,{l}\n")).collect();
        fs::write(&file, format!("path,label\n{rows}")).unwrap();
    };
    let data = format!("learn = 't.csv'\nselect = 't.csv'\n{PLAIN}");
    let of = |scene: &Scene| scene.load(&data).map(|data| (labels(&data.learn), data.notes));
    let names = json!({"label_names": ["0", "1", "10", "2"]});
    table(["10", "2", "0"]);
    assert_eq!(of(&scene).unwrap().0, [10, 2, 0], "outputs, where nothing names them");
    table(["10.0", "2.", "0"]);
    assert_eq!(of(&scene).unwrap().0, [10, 2, 0], "as pandas writes a column with gaps");
    scene.config = Some(names);
    let (found, notes) = of(&scene).unwrap();
    assert_eq!(found, [2, 3, 0]);
    assert!(notes.iter().any(|n| n.starts_with("assumed: the labels of") && n.contains("class names")), "{notes:?}");
    table(["10", "2", "7"]);
    let both = of(&scene).unwrap_err();
    assert!(both.contains("label 7 is ambiguous: it can be output 7, or the name of a class"), "{both}");
    // Numbers that mean the same either way, and names that are no numbers.
    scene.config = Some(json!({"label_names": ["0", "1", "2"]}));
    table(["2", "1", "0"]);
    assert_eq!(of(&scene).unwrap().0, [2, 1, 0]);
    scene.config = Some(json!({"label_names": ["a", "b", "c"]}));
    assert_eq!(of(&scene).unwrap().0, [2, 1, 0]);
    // Letters that look the same are the same.
    scene.config = Some(json!({"label_names": ["größe", "b", "c"]}));
    table(["gro\u{308}ße", "c", "b"]);
    assert_eq!(of(&scene).unwrap().0, [0, 2, 1]);
}

#[test]
fn what_the_order_of_folders_decides_is_said() {
    let scene = Scene::new();
    folder(&scene.path("learn"), &["bee", "ant"], 1, 0);
    let data = scene.load(&format!("learn = 'learn'\nselect = 'learn'\n{PLAIN}")).unwrap();
    let note = data.notes.iter().find(|note| note.starts_with("assumed: outputs are the classes of")).unwrap();
    assert!(note.contains("0 is `ant`, 1 is `bee`") && note.contains("data.classes"), "{note}");
}

/// Copies of an image, as augmentation makes them, never lie on both sides of a split that is made here.
#[test]
fn copies_of_a_sample_are_set_aside_together() {
    let scene = Scene::new();
    folder(&scene.path("learn"), &["a", "b"], 6, 0);
    for class in ["a", "b"] {
        for i in 0..6 {
            let of = |name: String| scene.path("learn").join(class).join(name);
            fs::copy(of(format!("{i}.png")), of(format!("{i}-copy.png"))).unwrap();
        }
    }
    let data = scene.load(&format!("learn = 'learn'\n{PLAIN}")).unwrap();
    let rows = |split| values(split).chunks(192).map(<[f32]>::to_vec).collect::<Vec<_>>();
    let (learn, select) = (rows(&data.learn), rows(&data.select));
    assert_eq!(learn.len() + select.len(), 24);
    assert!(select.len() >= 7 && select.iter().all(|row| !learn.contains(row)));
    assert!(data.notes.iter().any(|note| note.starts_with("12 learn samples are copies")), "{:?}", data.notes);
    assert!(data.entries[0].hash.ends_with(":copies"), "another rule makes another split");
    // Nothing changes where there are none.
    folder(&scene.path("plain"), &["a", "b"], 6, 0);
    let plain = scene.load(&format!("learn = 'plain'\n{PLAIN}")).unwrap();
    assert!(!plain.entries[0].hash.contains("copies") && plain.select.samples() == 4);
}

/// transformers 5 writes the image processor of some models into `processor_config.json` alone.
#[test]
fn the_processor_of_transformers_5_is_read_and_ingredients_must_see_the_same_images() {
    let mut scene = Scene::new();
    folder(&scene.path("learn"), &["a", "b"], 2, 0);
    let both = "learn = 'learn'\nselect = 'learn'";
    let write = |scene: &Scene, model: &str, name: &str, json: serde_json::Value| {
        fs::create_dir_all(scene.path(model)).unwrap();
        fs::write(scene.path(model).join(name), json.to_string()).unwrap();
    };
    let processor =
        json!({"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}, "image_mean": 0.25});
    write(&scene, "k0", "processor_config.json", json!({"image_processor": processor}));
    scene.models = vec![scene.path("k0")];
    let nested = scene.load(both).unwrap();
    write(&scene, "k1", "preprocessor_config.json", processor.clone());
    scene.models = vec![scene.path("k1")];
    let alone = scene.load(both).unwrap();
    assert_eq!(nested.entries[0].hash, alone.entries[0].hash);
    assert!(!nested.notes.iter().any(|note| note.contains("assumed: images")), "{:?}", nested.notes);
    // The same in other words and another file is the same.
    let words = json!({"feature_extractor_type": "ViTFeatureExtractor", "size": 8, "image_mean": [0.25, 0.25, 0.25], "do_pad": null});
    write(&scene, "k2", "preprocessor_config.json", words);
    scene.models = ["k0", "k1", "k2"].map(|k| scene.path(k)).to_vec();
    assert_eq!(scene.load(both).unwrap().entries[0].hash, alone.entries[0].hash);
    // Other steps are refused, unless they are stated for all.
    let other = json!({"image_processor_type": "ViTImageProcessor", "size": 8, "image_mean": [0.1, 0.2, 0.3]});
    write(&scene, "k2", "preprocessor_config.json", other);
    scene.refuses(both, &["k2/preprocessor_config.json", "mean: found [0.1, 0.2, 0.3], expected 0.25", "[data.image]"]);
    scene.load(&format!("{both}\nimage.mean = 0.5")).unwrap();
    // Who says nothing is taken to see what the others see.
    fs::create_dir_all(scene.path("k3")).unwrap();
    scene.models = vec![scene.path("k3"), scene.path("k1")];
    let silent = scene.load(both).unwrap();
    assert_eq!(silent.entries[0].hash, alone.entries[0].hash);
    assert!(silent.notes.iter().any(|note| note.contains("assumed: images for") && note.contains("k3")));
}

/// `ViTImageProcessor` without a file: exactly to the model's size, bilinear, 0.5 and 0.5.
#[test]
fn a_vit_without_a_file_sees_what_its_processor_does_by_default() {
    let mut scene = Scene::new();
    folder(&scene.path("learn"), &["a", "b"], 2, 0);
    let both = "learn = 'learn'\nselect = 'learn'";
    let usual = scene.load(both).unwrap();
    fs::create_dir_all(scene.path("k0")).unwrap();
    let stated = json!({"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}});
    fs::write(scene.path("k0/preprocessor_config.json"), stated.to_string()).unwrap();
    scene.models = vec![scene.path("k0")];
    assert_eq!(values(&usual.learn), values(&scene.load(both).unwrap().learn));
}

#[test]
fn images_that_are_not_decoded_here_are_not_passed_over() {
    let scene = Scene::new();
    folder(&scene.path("learn"), &["a", "b"], 2, 0);
    for (name, format) in
        [("0.bmp", image::ImageFormat::Bmp), ("1.tif", image::ImageFormat::Tiff), ("2.gif", image::ImageFormat::Gif)]
    {
        picture(12, 8, 1).save_with_format(scene.path("learn/a").join(name), format).unwrap();
    }
    let both = format!("learn = 'learn'\nselect = 'learn'\n{PLAIN}");
    assert_eq!(scene.load(&both).unwrap().learn.samples(), 7);
    fs::write(scene.path("learn/b/x.heic"), "").unwrap();
    scene.refuses(
        &both,
        &["found 1 images in formats that cannot be decoded", "learn/b/x.heic", "data.skip_unreadable"],
    );
    let skipped = scene.load(&format!("skip_unreadable = true\n{both}")).unwrap();
    assert_eq!(skipped.learn.samples(), 7);
    assert!(
        skipped.notes.iter().any(|note| note.contains("1 images in formats that cannot be decoded")),
        "{:?}",
        skipped.notes
    );
}

#[test]
fn folders_that_are_no_source() {
    let scene = Scene::new();
    fs::create_dir(scene.path("empty")).unwrap();
    scene.refuses("learn = 'empty'", &["empty", "expected one subfolder per class"]);
    fs::create_dir_all(scene.path("hollow/a")).unwrap();
    scene.refuses("learn = 'hollow'", &["hollow", "expected images, found none"]);
    fs::create_dir(scene.path("loose")).unwrap();
    picture(3, 3, 1).save(scene.path("loose/1.png")).unwrap();
    scene.refuses("learn = 'loose'", &["loose", "found no subfolder and 1 images"]);
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
    assert!(Classification::check_labels(&named, "labels", 3).is_err());
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
    refused("path,label\npictures/a/0.png\n", &["learn.csv", "line 2: expected 2 columns", "found 1"]);
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
    assert!(Classification::check_labels(&data, "labels", 4).is_err());
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
    scene.refuses(&both("holes"), &["holes.parquet, row group 0, row 2", "expected the bytes of an image"]);
    let skipped = load(&scene, &format!("skip_unreadable = true\n{}", both("holes"))).unwrap();
    assert_eq!(labels(&skipped.learn), [0, 1]);
    assert!(skipped.notes.iter().any(|note| note.contains("1 of 3 images could not be read")));
    // Damaged files.
    let whole = fs::read(fixture("images/parquet/data.parquet")).unwrap();
    for (name, bytes) in [("cut", &whole[..whole.len() / 2]), ("empty", &whole[..0]), ("text", b"PAR1 no".as_slice())] {
        fs::write(scene.path(&format!("{name}.parquet")), bytes).unwrap();
        scene.refuses(
            &format!("learn = '{name}.parquet'"),
            &[&format!("{name}.parquet"), "cannot read the Parquet file"],
        );
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
        ("truncated.jpg", "are truncated"),
        ("text.jpg", "expected a JPEG, PNG, WebP, BMP, GIF or TIFF image"),
        ("truncated.png", "cannot be decoded"),
        ("truncated.webp", "cannot be decoded"),
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
            let note = skipped.notes.iter().find(|note| note.contains("1 of 5 images could not be read")).unwrap();
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

//! A whole sweep on images, by the programs.

use std::fs;
use std::path::Path;

use crate::support::fixture;
use crate::support::images::{folder, picture};
use crate::support::programs::Place;

const CLASSES: [&str; 4] = ["ant", "bee", "cat", "dog"];

fn spec(data: &str, epochs: usize) -> String {
    let zoo = fixture("trajectories/zoo/*");
    format!(
        "seed = 4\n[zoo]\nallow_chance = true\ningredients = ['{}']\n[data]\n{data}\n[soup]\nmethod = 'mehl+'\nmodel_batch = 2\nbatch = 4\ninner_epochs = {epochs}\npatience = {epochs}\n",
        zoo.display()
    )
}

fn place() -> Place {
    let place = Place::new();
    folder(&place.path("learn"), &CLASSES, 4, 0);
    folder(&place.path("test"), &CLASSES, 2, 5000);
    place
}

#[test]
fn a_sweep_learns_on_images() {
    let place = place();
    place.spec("sweep.toml", &spec("learn = 'learn'\ntest = 'test'", 2));
    let ran = place.run("sweep.toml", "out").expect(0).says(&["assumed: images are prepared as usual for `vit`"]);
    assert!(ran.stdout.contains("mehl+"));
    let results = place.results("out");
    assert!(
        results.notes.iter().any(|note| note.contains("5 of 16 learn samples are used as select")),
        "{:?}",
        results.notes
    );
    assert!(results.tasks.iter().all(|row| row.test.is_some_and(|score| score.samples == 8)));
    // From the cache this time: the same bits.
    place.run("sweep.toml", "again").expect(0);
    assert_eq!(place.coefficients("out"), place.coefficients("again"));
}

#[test]
fn images_that_change_while_a_sweep_is_under_way() {
    let place = place();
    place.spec("sweep.toml", &spec("learn = 'learn'\ntest = 'test'", 300));
    let mut run = place.start("sweep.toml", "out");
    assert!(run.watch(|| place.path("out/tasks/uniform/outcome.json").exists()), "over too early");
    run.signal(libc::SIGINT);
    run.wait().expect(130);
    let sound = place.read("learn/ant/3.png");
    picture(12, 8, 77).save(place.path("learn/ant/3.png")).unwrap();
    place.run("sweep.toml", "out").expect(2).says(&["data changed: ", "learn"]);
    // Contents decide, not names.
    fs::remove_file(place.path("learn/ant/3.png")).unwrap();
    fs::write(place.path("learn/ant/30.png"), sound).unwrap();
    let mut run = place.start("sweep.toml", "out");
    assert!(run.watch(|| place.path("out/tasks/0001-mehl+/checkpoint.safetensors").exists()), "over too early");
    assert!(!run.kill().stderr.contains("changed"));
}

#[test]
fn what_is_wrong_with_images_is_told_with_exit_code_2() {
    let place = place();
    let mut runs = 0;
    let mut refused = |data: &str, says: &[&str]| {
        place.spec("sweep.toml", &spec(data, 2));
        runs += 1;
        place.run("sweep.toml", &format!("out{runs}")).expect(2).says(&["error: "]).says(says);
    };
    let spoil = |path: &Path| fs::write(path, "no image").unwrap();
    refused("learn = 'learn'\nimage.resize = [9, 9]\nimage.crop = 9", &["expected images of 8 x 8", "found 9 x 9"]);
    refused("learn = 'learn'\nclasses = ['ant', 'bee', 'cat', 'dog', 'eel']", &["expected 4 classes", "found 5"]);
    refused("learn = 'learn'\nselect = 'none'", &["none", "No such file"]);
    folder(&place.path("three"), &CLASSES[..3], 2, 0);
    refused("learn = 'three'", &["three", "expected 4 classes", "found 3"]);
    refused("learn = 'learn'\nselect = 'three'", &["three", "class `dog` is missing"]);
    fs::write(place.path("rows.csv"), "path,label\nlearn/ant/0.png,0\nlearn/ant/1.png,4\n").unwrap();
    refused("learn = 'rows.csv'\nselect = 'rows.csv'", &["rows.csv", "expected classes 0 to 3", "found 4"]);
    fs::write(place.path("rows.csv"), "path,label\n../escape.png,0\n").unwrap();
    refused("learn = 'rows.csv'", &["rows.csv", "line 2", "points outside"]);
    spoil(&place.path("learn/bee/2.png"));
    refused(
        "learn = 'learn'",
        &["learn/bee/2.png", "expected a JPEG, PNG, WebP, BMP, GIF or TIFF image", "skip_unreadable"],
    );
    place.spec("sweep.toml", &spec("learn = 'learn'\nskip_unreadable = true", 2));
    place.run("sweep.toml", "skipped").expect(0).says(&["1 of 16 images could not be read", "learn/bee/2.png"]);
    assert!(place.results("skipped").notes.iter().any(|note| note.contains("1 of 16 images could not be read")));
}

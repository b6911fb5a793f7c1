//! One naming for ingredients whose tensors' names differ in what all names of a file begin with: `torch.compile` and wrappers for several
//! devices put `_orig_mod.` or `module.` before each.

use std::collections::BTreeMap;

use super::ingredient::Ingredient;

/// Lets ingredients that have the same names after their common beginnings have the same names. The beginning of most of them stays, the
/// first one's of two as common. Ingredients that agree already stay as they are.
pub(super) fn align(ingredients: &mut [Ingredient]) {
    let mut alike: BTreeMap<Vec<String>, Vec<usize>> = BTreeMap::new();
    for (i, ingredient) in ingredients.iter().enumerate() {
        let prefix = ingredient.common_prefix();
        let names = ingredient.tensor_names().map(|name| name[prefix.len()..].to_string()).collect();
        alike.entry(names).or_default().push(i);
    }
    for members in alike.into_values() {
        let prefixes: Vec<String> = members.iter().map(|&i| ingredients[i].common_prefix()).collect();
        let count = |prefix: &String| prefixes.iter().filter(|other| *other == prefix).count();
        // Of several maxima `max_by_key` takes the last.
        let Some(common) = prefixes.iter().rev().max_by_key(|prefix| count(prefix)).cloned() else { continue };
        for (&i, prefix) in members.iter().zip(&prefixes) {
            if *prefix != common {
                ingredients[i].replace_prefix(&common);
            }
        }
    }
}

/// The ingredient that others are compared with: the first of those whose names and shapes most share, and among them of those whose
/// dtypes most share. One whose names are those on disk. 0 for an empty zoo.
pub(super) fn reference(ingredients: &[Ingredient]) -> usize {
    let shapes = |i: &usize| ingredients[*i].tensors().map(|(name, info)| (name, &info.shape)).collect::<Vec<_>>();
    let dtypes = |i: &usize| ingredients[*i].tensors().map(|(_, info)| info.dtype).collect::<Vec<_>>();
    let all: Vec<usize> = (0..ingredients.len()).collect();
    let alike = largest(&all, shapes);
    let (renamed, own): (Vec<usize>, Vec<usize>) = alike.iter().partition(|&&i| ingredients[i].is_renamed());
    largest(if own.is_empty() { &renamed } else { &own }, dtypes).first().copied().unwrap_or(0)
}

/// The members of the largest group with one key; of the first, if two are as large.
fn largest<K: PartialEq>(members: &[usize], key: impl Fn(&usize) -> K) -> Vec<usize> {
    let mut groups: Vec<(K, Vec<usize>)> = Vec::new();
    for &member in members {
        let own = key(&member);
        match groups.iter_mut().find(|(key, _)| *key == own) {
            Some((_, group)) => group.push(member),
            None => groups.push((own, vec![member])),
        }
    }
    groups.into_iter().rev().max_by_key(|(_, group)| group.len()).map(|(_, group)| group).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zoo::testing::{f32s, write_file};

    /// Ingredients whose tensors have these names.
    fn zoo(names: &[&[&str]]) -> (tempfile::TempDir, Vec<Ingredient>) {
        let root = tempfile::tempdir().unwrap();
        let open = |(i, names): (usize, &&[&str])| {
            let path = root.path().join(format!("{i}.safetensors"));
            let tensors: Vec<_> = names.iter().map(|name| f32s(name, &[1], &[i as f32])).collect();
            write_file(&path, &tensors);
            Ingredient::open(&path).unwrap()
        };
        let ingredients = names.iter().enumerate().map(open).collect();
        (root, ingredients)
    }

    fn names(ingredient: &Ingredient) -> Vec<&str> {
        ingredient.tensor_names().collect()
    }

    #[test]
    fn the_common_beginning_ends_with_a_dot() {
        for (names, prefix) in [
            (&["net.a.w", "net.b"][..], "net."),
            (&["module._orig_mod.a.w", "module._orig_mod.a.b"], "module._orig_mod.a."),
            (&["a.w", "b.w"], ""),
            (&["net", "net.b"], ""),
            (&["neta.x", "netb.x"], ""),
            (&["only.one"], "only."),
        ] {
            assert_eq!(zoo(&[names]).1[0].common_prefix(), prefix, "{names:?}");
        }
    }

    #[test]
    fn names_that_differ_in_their_common_beginning_become_those_of_most() {
        let (_root, mut three) = zoo(&[&["_orig_mod.a", "_orig_mod.b"], &["a", "b"], &["a", "b"]]);
        align(&mut three);
        assert_eq!(names(&three[0]), ["a", "b"]);
        assert_eq!(three[0].disk_name("a"), "_orig_mod.a");
        assert!(three[0].is_renamed() && three[0].notes()[0].contains("`_orig_mod.`"), "{:?}", three[0].notes());
        let mut value = [0.0f32];
        three[0].read("b", &mut value).unwrap();
        assert_eq!((value, three[1].is_renamed()), ([0.0], false));

        let (_root, mut two) = zoo(&[&["module.a", "module.b"], &["a", "b"]]);
        align(&mut two);
        assert_eq!(names(&two[1]), ["module.a", "module.b"], "the first one's of two as common");
    }

    #[test]
    fn ingredients_that_agree_or_differ_otherwise_stay_as_they_are() {
        let (_root, mut same) = zoo(&[&["module.a", "module.b"], &["module.a", "module.b"], &["net.a", "net.c"]]);
        align(&mut same);
        assert!(same.iter().all(|ingredient| !ingredient.is_renamed()));
        assert_eq!(names(&same[2]), ["net.a", "net.c"]);
    }

    #[test]
    fn the_reference_is_one_of_the_majority() {
        assert_eq!(reference(&zoo(&[&["x"], &["a", "b"], &["a", "b"]]).1), 1);
        assert_eq!(reference(&zoo(&[&["x"], &["a"]]).1), 0);
        assert_eq!(reference(&[]), 0);
    }
}

//! The Lua scripts, each with the table of states and the prelude that all share.

use std::fmt::Write;

use redis::Script;

use crate::task::{Event, TaskState};

macro_rules! scripts {
    ($($name:ident),* $(,)?) => {
        /// One script a transition.
        pub struct Scripts { $(pub $name: Script,)* }

        impl Scripts {
            pub fn new() -> Self {
                let table = table();
                Self { $($name: Script::new(&format!("{table}{PRELUDE}{}", text(stringify!($name)))),)* }
            }
        }

        /// A script's own text.
        fn text(name: &str) -> &'static str {
            match name {
                $(stringify!($name) => include_str!(concat!("../scripts/", stringify!($name), ".lua")),)*
                _ => "",
            }
        }

        #[cfg(test)]
        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

const PRELUDE: &str = include_str!("../scripts/prelude.lua");

/// The table of [`TaskState`] as the scripts take it: `AFTER[state][event]` is the next state, and
/// `FINAL[state]` is true for states in which nothing is computed any more.
fn table() -> String {
    let mut after = String::from("local AFTER = {");
    let mut last = String::from("local FINAL = {");
    for state in TaskState::ALL {
        let next = Event::ALL.into_iter().filter_map(|event| Some((event, state.after(event)?)));
        let next: Vec<String> = next.map(|(event, next)| format!("{} = '{next}'", event.as_str())).collect();
        // Writing to a text cannot fail.
        let _ = write!(after, "{state} = {{{}}}, ", next.join(", "));
        if state.is_final() {
            let _ = write!(last, "{state} = true, ");
        }
    }
    format!("{after}}}\n{last}}}\n")
}

scripts!(
    create_sweep,
    add_tasks,
    open_sweep,
    extend,
    close,
    release_pending,
    due,
    choose,
    confirmed,
    republish,
    claim,
    renew,
    save,
    complete,
    release,
    wait,
    promote,
    prune,
    expire,
    request,
    settle,
    retry,
    dead,
    keep_letter,
    remove,
    beat,
    workers,
    sweep,
    retire,
    adopt,
    probe,
    ended,
    examine,
    examine_pool,
    discard,
);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The words in quotes that follow `call(`, as the argument after so many others.
    fn words<'a>(text: &'a str, call: &str, others: usize) -> Vec<&'a str> {
        let calls = text.split(call).skip(1);
        let argument = |call: &'a str| call.split([',', ')']).nth(others).map(|word| word.trim().trim_matches('\''));
        calls.filter_map(argument).collect()
    }

    fn all_texts() -> impl Iterator<Item = (&'static str, &'static str)> {
        NAMES.iter().map(|name| (*name, text(name))).chain([("prelude", PRELUDE)])
    }

    #[test]
    fn scripts_are_given_the_table_of_states() {
        let table = table();
        let running = "running = {complete = 'succeeded', fail = 'failed', requeue = 'queued', wait = 'waiting', \
                       pause = 'paused', cancel = 'cancelled'}, ";
        assert!(table.contains(running) && table.contains("succeeded = {}, "), "{table}");
        let last = "local FINAL = {succeeded = true, failed = true, cancelled = true, pruned = true, }\n";
        assert!(table.ends_with(last), "{table}");
        let pairs = TaskState::ALL.into_iter().flat_map(|state| Event::ALL.map(|event| (state, event)));
        let allowed = pairs.filter(|(state, event)| state.after(*event).is_some()).count();
        assert_eq!(table.matches(" = '").count(), allowed);
    }

    /// Every change of a state goes through the table, by an event that it has; and no event of it is forgotten.
    #[test]
    fn scripts_change_states_by_events_of_the_table_alone() {
        let mut used = BTreeSet::new();
        for (name, text) in all_texts() {
            let steps = words(text, "step(", 1).into_iter().chain(words(text, "enqueue(", 1));
            // Where the two are defined, and where the one calls the other.
            let steps = steps.filter(|word| *word != "what");
            for word in steps {
                assert!(Event::ALL.iter().any(|event| event.as_str() == word), "{name}: no event {word}");
                used.insert(word);
            }
            let writes = text.lines().filter(|line| line.contains("'HSET'") && line.contains("'state',"));
            let writes: Vec<&str> = writes.map(|line| line.split("'state', ").last().unwrap()).collect();
            match name {
                "prelude" => assert_eq!(writes, ["to)"], "in `step`"),
                // A task begins as pending; one whose record is damaged has failed.
                "add_tasks" | "extend" => assert!(writes.iter().all(|write| write.starts_with("'pending'"))),
                "examine" => assert!(writes.len() == 1 && writes[0].starts_with("'failed'"), "{writes:?}"),
                _ => assert_eq!(writes, [""; 0], "{name}"),
            }
        }
        assert_eq!(used, Event::ALL.into_iter().map(Event::as_str).collect());
    }
}

//! The Lua scripts, each with the prelude that all share.

use redis::Script;

macro_rules! scripts {
    ($($name:ident),* $(,)?) => {
        /// One script a transition.
        pub struct Scripts { $(pub $name: Script,)* }

        impl Scripts {
            pub fn new() -> Self {
                Self { $($name: Script::new(concat!(
                    include_str!("../scripts/prelude.lua"),
                    include_str!(concat!("../scripts/", stringify!($name), ".lua"))
                )),)* }
            }
        }
    };
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

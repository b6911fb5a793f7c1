#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mehl_soup::fuzzing::shard_index(data));

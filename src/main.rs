//! `mehl-soup`: parse, dispatch, exit code.

fn main() -> mehl_soup::cli::exit::Exit {
    mehl_soup::cli::main()
}

//! `mehl-soup plan`: checks the specification, then hands over to the worker, which has the models.

use super::exit::Exit;
use super::{PlanArgs, worker};
use crate::sweep::parse::parse_spec;

/// Refuses a bad specification before anything is started.
pub(super) fn check_and_start(args: &PlanArgs) -> Exit {
    if let Err(error) = parse_spec(&args.spec) {
        return Exit::Usage.say(error);
    }
    let mut arguments = vec!["plan".into(), args.spec.clone().into()];
    if let Some(memory) = args.memory {
        arguments.extend(["--memory".into(), format!("{}B", memory.as_u64()).into()]);
    }
    arguments.extend(["--format".into(), args.format.as_str().into()]);
    worker::start(&arguments)
}

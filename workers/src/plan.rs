//! `mehl-soup-worker plan`: a plan as a table or JSON.

use std::io::Write;

use bytesize::ByteSize;
use comfy_table::{Cell, CellAlignment, Table};
use mehl_soup::cli::exit::{Exit, run_error};
use mehl_soup::cli::run::EngineFactory;
use mehl_soup::cli::{Format, PlanArgs};
use mehl_soup::runner::local::RunError;
use mehl_soup::sweep::parse::parse_spec;
use mehl_soup::zoo::HashCache;
use mehl_soup_worker::engine::TorchEngine;
use mehl_soup_worker::engine::plan::SweepPlan;

/// Prints the plan; ends with 2 if a task of it is refused.
pub fn plan(args: &PlanArgs, engine: EngineFactory<TorchEngine>) -> Exit {
    let mut spec = match parse_spec(&args.spec) {
        Ok(spec) => spec,
        Err(error) => return Exit::Usage.say(error),
    };
    if let Some(memory) = args.memory {
        spec.compute.memory_bytes = Some(memory.as_u64());
    }
    let planned = engine(&spec, 0, HashCache::from_environment())
        .and_then(|mut engine| engine.plan(&mut |note| eprintln!("note: {note}")));
    let plan = match planned {
        Ok(plan) => plan,
        Err(error) => return run_error(&RunError::from(&error)),
    };
    let text = match args.format {
        Format::Table => table(&plan),
        Format::Json => match serde_json::to_string_pretty(&plan) {
            Ok(json) => json,
            Err(error) => return Exit::Failed.say(error),
        },
    };
    // A closed pipe has read what it wanted.
    let _ = writeln!(std::io::stdout(), "{text}");
    match plan.tasks.iter().find_map(|task| task.refused.as_ref()) {
        Some(why) => Exit::Usage.say(why),
        None => Exit::Done,
    }
}

fn bytes(bytes: u64) -> String {
    ByteSize::b(bytes).to_string()
}

fn seconds(seconds: f64) -> String {
    match seconds {
        s if s >= 7200.0 => format!("{:.1} h", s / 3600.0),
        s if s >= 120.0 => format!("{:.1} min", s / 60.0),
        s => format!("{s:.1} s"),
    }
}

fn table(plan: &SweepPlan) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY).set_header([
        "task",
        "method",
        "model batch",
        "compute",
        "directions",
        "device peak",
        "host peak",
        "read",
        "iterations",
        "time",
    ]);
    for task in &plan.tasks {
        let learns = task.model_batch > 0;
        let or_none = |text: String| if learns { text } else { "-".to_string() };
        let refused = task.refused.is_some();
        let figures = [
            if refused { "refused".to_string() } else { or_none(task.model_batch.to_string()) },
            or_none(task.dtype.to_string()),
            or_none(format!("{:?}", task.direction_dtype).to_lowercase()),
            task.device_peak_bytes.map_or_else(|| "-".to_string(), bytes),
            if refused { "-".to_string() } else { bytes(task.host_peak_bytes) },
            if refused { "-".to_string() } else { bytes(task.share.bytes_read) },
            or_none(task.iterations.to_string()),
            if refused { "-".to_string() } else { seconds(task.share.seconds) },
        ];
        let mut row = vec![Cell::new(&task.task), Cell::new(task.method.to_string())];
        row.extend(figures.into_iter().map(|text| Cell::new(text).set_alignment(CellAlignment::Right)));
        table.add_row(row);
    }
    format!(
        "{} ingredients, {} mixed values, {} of files; on {}, memory budget {} (at most \
         {})\n{table}\n\
         scoring the ingredients: {} read, {}; in total: {} read, {} on one device, without early \
         stopping",
        plan.ingredients,
        plan.mixed_values,
        bytes(plan.zoo_bytes),
        plan.device,
        bytes(plan.budget_bytes),
        bytes(plan.ceiling_bytes),
        bytes(plan.scores.bytes_read),
        seconds(plan.scores.seconds),
        bytes(plan.total.bytes_read),
        seconds(plan.total.seconds)
    )
}

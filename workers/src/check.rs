//! What `inspect` asks of the worker: whether a run would take these ingredients and these data.

use mehl_soup::sweep::spec::{Spec, ZooSpec};
use mehl_soup::zoo::{HashCache, Layout, Zoo};
use mehl_soup_worker::engine::Inputs;
use mehl_soup_worker::families;
use tch::{Device, Kind};

/// What a run assumes of a zoo's model, or why it cannot compute it.
pub fn model(zoo: &Zoo, stated: &ZooSpec) -> Result<Vec<String>, String> {
    let family = families::detect(stated.family, zoo).map_err(|error| error.to_string())?;
    let model = families::load(family, stated, zoo, &Layout::of_headers(zoo), Device::Cpu, Kind::Float)
        .map_err(|error| error.to_string())?;
    Ok(model.assumed().iter().map(|what| format!("assumed: {what}")).collect())
}

/// Opens everything that a run would; what it would say of it, or why it would end.
pub fn inputs(spec: &Spec, note: &mut dyn FnMut(&str)) -> Result<Vec<String>, String> {
    let cache = HashCache::from_environment();
    let inputs =
        Inputs::open(spec, Device::Cpu, Kind::Float, cache.as_ref(), note).map_err(|error| error.to_string())?;
    Ok(inputs.notes())
}

//! What `/metrics` tells, taken apart.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::servers_support::service::request;

/// One answer of `/metrics`.
#[derive(Debug, Clone, Default)]
pub struct Scrape {
    /// Type and help by name.
    pub families: BTreeMap<String, (String, String)>,
    /// Values by name and labels as they are written, such as `up{a="b"}`.
    pub samples: BTreeMap<String, f64>,
    pub text: String,
}

impl Scrape {
    /// Asks `http://address/metrics`.
    pub fn of(address: &str) -> Self {
        let answer = request("GET", &format!("{}/metrics", address.trim_end_matches('/')), &[], b"");
        assert_eq!(answer.status, 200, "{address}");
        assert!(answer.header("content-type").starts_with("text/plain"), "{}", answer.header("content-type"));
        Self::parse(String::from_utf8(answer.bytes).unwrap())
    }

    /// Asks again and again until what it tells is as wanted.
    pub fn until(address: &str, what: &str, wanted: impl Fn(&Self) -> bool) -> Self {
        let began = Instant::now();
        loop {
            let scrape = Self::of(address);
            if wanted(&scrape) {
                return scrape;
            }
            assert!(began.elapsed() < Duration::from_secs(10), "{what}: {}", scrape.text);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn parse(text: String) -> Self {
        let mut scrape = Self::default();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                scrape.families.entry(name.to_string()).or_default().1 = help.to_string();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                scrape.families.entry(name.to_string()).or_default().0 = kind.to_string();
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                assert!(scrape.samples.insert(series.to_string(), value.parse().unwrap()).is_none(), "{line}: twice");
            }
        }
        scrape.text = text;
        scrape
    }

    /// The value of a series, named without the prefix.
    pub fn value(&self, series: &str) -> f64 {
        let full = format!("mehl_soup_{series}");
        *self.samples.get(&full).unwrap_or_else(|| panic!("{full}: not in\n{}", self.text))
    }

    /// The sum of all series of a name.
    pub fn sum(&self, name: &str) -> f64 {
        self.by_label(name).values().sum()
    }

    /// Values of a name by the text of its labels.
    pub fn by_label(&self, name: &str) -> BTreeMap<&str, f64> {
        let full = format!("mehl_soup_{name}");
        let of_name = |(series, value): (&'_ String, &f64)| {
            let labels = series.strip_prefix(&full)?;
            (labels.is_empty() || labels.starts_with('{')).then(|| (series.len() - labels.len(), *value))
        };
        self.samples
            .iter()
            .filter_map(|(series, value)| of_name((series, value)).map(|(at, value)| (&series[at..], value)))
            .collect()
    }
}

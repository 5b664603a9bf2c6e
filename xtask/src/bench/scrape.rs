//! The metrics of a process at one moment.

use std::time::Duration;

use waypost_testbed::{Service, http};

use crate::Error;

/// A process under full load still answers its admin port.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A page of metrics.
#[derive(Debug, Clone)]
pub(crate) struct Scrape(String);

impl Scrape {
    pub(crate) fn of(service: &Service) -> Result<Self, Error> {
        let failed = |reason: String| {
            let name = service.name();
            Error::Step(format!("the metrics of {name} cannot be read: {reason}"))
        };
        match http::get(&service.admin(), "/metrics", TIMEOUT) {
            Ok(response) if response.status == 200 => Ok(Self(response.body)),
            Ok(response) => Err(failed(format!("status {}", response.status))),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// The sum of all samples of a name that have all of these labels, each written
    /// as `key="value"`; 0 if there are none.
    pub(crate) fn total(&self, name: &str, labels: &[&str]) -> f64 {
        let samples = self.0.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (of, rest) = series.split_once('{').unwrap_or((series, ""));
            let is_asked = of == name && labels.iter().all(|label| rest.contains(label));
            is_asked.then(|| value.parse::<f64>().ok()).flatten()
        });
        samples.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_a_name_are_summed_by_their_labels() {
        let page = "# HELP hits_total Hits\n\
                    hits_total{tier=\"l1\",result=\"hit\"} 3\n\
                    hits_total{tier=\"l1\",result=\"miss\"} 4\n\
                    hits_total_other 9\n\
                    plain 1.5\n";
        let scrape = Scrape(page.to_owned());
        assert_eq!(scrape.total("hits_total", &[]), 7.0);
        assert_eq!(scrape.total("hits_total", &["result=\"hit\""]), 3.0);
        let both = ["tier=\"l1\"", "result=\"miss\""];
        assert_eq!(scrape.total("hits_total", &both), 4.0);
        assert_eq!(scrape.total("plain", &[]), 1.5);
        assert_eq!(scrape.total("absent", &[]), 0.0);
    }
}

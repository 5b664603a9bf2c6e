//! Latency over percentile, drawn as SVG: the x axis gives every further nine
//! the same room, so that the tail can be read; the y axis is logarithmic.

use std::fmt::Write as _;
use std::time::Duration;

use super::millis;
use crate::record::Latencies;
use crate::span::Pretty;

/// Points for each factor of ten in rarity.
const POINTS_PER_NINE: u32 = 20;
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 52.0;

/// A named line.
#[derive(Debug)]
pub struct Series<'a> {
    /// For the legend.
    pub name: String,
    /// (percentile, milliseconds), in order.
    pub points: &'a [(f64, f64)],
}

/// The curve of a histogram, as far as its count can tell.
#[must_use]
pub fn points(latencies: &Latencies) -> Vec<(f64, f64)> {
    if latencies.count() == 0 {
        return Vec::new();
    }
    let nines = (latencies.count() as f64).log10();
    let last = (nines * f64::from(POINTS_PER_NINE)) as u32;
    (0..=last)
        .map(|step| {
            let rarity = f64::from(step) / f64::from(POINTS_PER_NINE);
            let percentile = 100.0 * (1.0 - 10_f64.powf(-rarity));
            (percentile, millis(latencies.percentile(percentile)))
        })
        .collect()
}

/// Draws lines into one frame, as an `<svg>` element. Colours come from the
/// classes `axis`, `grid` and `s0` to `s7` of the page.
#[must_use]
pub fn draw(series: &[Series<'_>]) -> String {
    let frame = Frame::around(series);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         aria-label=\"Latency over percentile\">\n"
    );
    frame.draw_grid(&mut svg);
    for (index, line) in series.iter().enumerate() {
        let mut path = String::new();
        for &(percentile, millis) in line.points {
            let (x, y) = (frame.x(rarity(percentile)), frame.y(millis));
            let command = if path.is_empty() { 'M' } else { 'L' };
            let _ = write!(path, "{command}{x:.1} {y:.1}");
        }
        let _ = writeln!(
            svg,
            "<path class=\"line s{}\" d=\"{path}\"><title>{}</title></path>",
            index % 8,
            line.name
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// How many nines a percentile has: 0 for 0 %, 1 for 90 %, 2 for 99 %.
fn rarity(percentile: f64) -> f64 {
    -(1.0 - percentile / 100.0).max(1e-12).log10()
}

/// The scales of a drawing, in powers of ten.
struct Frame {
    nines: f64,
    low: f64,
    high: f64,
}

impl Frame {
    fn around(series: &[Series<'_>]) -> Self {
        let all = || series.iter().flat_map(|line| line.points);
        let nines = all().map(|point| rarity(point.0)).fold(1.0, f64::max);
        let low = all().map(|point| point.1).fold(f64::MAX, f64::min);
        let high = all().map(|point| point.1).fold(0.001, f64::max);
        let low = low.clamp(0.001, high).log10().floor();
        Self {
            nines,
            low,
            // At least one whole decade, so that the scale is never empty.
            high: high.log10().ceil().max(low + 1.0),
        }
    }

    fn x(&self, nines: f64) -> f64 {
        LEFT + nines / self.nines * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, millis: f64) -> f64 {
        let share = (millis.max(0.001).log10() - self.low) / (self.high - self.low);
        HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
    }

    fn draw_grid(&self, svg: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let marks = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999];
        for percentile in marks {
            let nines = rarity(percentile);
            if nines > self.nines + 1e-9 {
                break;
            }
            let x = self.x(nines);
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>\
                 <text class=\"axis\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{percentile}%</text>",
                bottom + 18.0
            );
        }
        for decade in self.low as i32..=self.high as i32 {
            for factor in [1.0, 2.0, 5.0] {
                let millis = 10_f64.powi(decade) * factor;
                let y = self.y(millis);
                if y < TOP - 0.5 {
                    break;
                }
                let label = Pretty(Duration::from_secs_f64(millis / 1e3));
                let _ = writeln!(
                    svg,
                    "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                     <text class=\"axis\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                    LEFT - 8.0,
                    y + 4.0
                );
            }
        }
        let _ = writeln!(
            svg,
            "<text class=\"axis\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">share of requests at \
             most this slow</text>\
             <text class=\"axis\" transform=\"translate(14 {:.1}) rotate(-90)\" \
             text-anchor=\"middle\">latency (logarithmic)</text>",
            f64::midpoint(LEFT, right),
            HEIGHT - 10.0,
            f64::midpoint(TOP, bottom)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_reaches_as_many_nines_as_there_are_samples() {
        let mut latencies = Latencies::default();
        for micros in 1..=1_000 {
            latencies.record(Duration::from_micros(micros));
        }
        let points = points(&latencies);
        assert_eq!(points.len(), 61);
        assert!((points[60].0 - 99.9).abs() < 1e-6);
        assert!(points.windows(2).all(|pair| pair[0].1 <= pair[1].1));
        assert!(super::points(&Latencies::default()).is_empty());
    }

    #[test]
    fn a_drawing_stays_inside_its_frame() {
        let points = [(0.0, 0.4), (90.0, 2.0), (99.0, 350.0)];
        let name = "all".to_owned();
        let series = [Series {
            name,
            points: &points,
        }];
        let frame = Frame::around(&series);
        for (percentile, millis) in points {
            let (x, y) = (frame.x(rarity(percentile)), frame.y(millis));
            assert!((LEFT..=WIDTH - RIGHT).contains(&x), "{x}");
            assert!((TOP..=HEIGHT - BOTTOM).contains(&y), "{y}");
        }
        assert!(draw(&series).contains("99%"));
        assert!(draw(&[]).contains("</svg>"));
    }
}

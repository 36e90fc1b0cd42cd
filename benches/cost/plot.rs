//! The plot beside the page: bars with a line from quartile to quartile, as SVG.

use crate::figure::{Spread, number};

/// A title, and a bar for each name.
type Panel<'a> = (&'a str, &'a [(&'static str, Spread)]);

const WIDTH: f64 = 760.0;
/// Where bars begin and end; their names stand before, their values behind.
const BARS: (f64, f64) = (190.0, 660.0);
const ROW: f64 = 26.0;
const TITLE: f64 = 40.0;

/// The panels, one below the other. Colours are legible on light and on dark ground.
pub(crate) fn svg(panels: &[Panel<'_>]) -> String {
    let mut top = 0.0;
    let mut drawn = String::new();
    for panel in panels {
        drawn += &bars(panel, top);
        top += height(panel);
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {top}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"{WIDTH}\" height=\"{top}\" fill=\"#ffffff\"/>\n{drawn}</svg>\n"
    )
}

fn height((_, bars): &Panel<'_>) -> f64 {
    bars.iter().fold(TITLE + ROW / 2.0, |height, _| height + ROW)
}

fn bars((title, bars): &Panel<'_>, top: f64) -> String {
    let (left, right) = BARS;
    let largest = bars.iter().map(|(_, spread)| spread.high).fold(f64::MIN_POSITIVE, f64::max);
    let at = |value: f64| left + value / largest * (right - left);
    let mut drawn = format!("<text x=\"8\" y=\"{}\" font-weight=\"bold\">{title}</text>\n", top + 26.0);
    let mut y = top + TITLE;
    for (name, spread) in *bars {
        let colour = if name.starts_with("sidecar") { "#0b6e4f" } else { "#8a95a5" };
        let (middle, end) = (y + ROW / 2.0, at(spread.median));
        drawn += &format!(
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{name}</text>\n\
             <rect x=\"{left}\" y=\"{}\" width=\"{:.1}\" height=\"{}\" fill=\"{colour}\"/>\n\
             <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle}\" y2=\"{middle}\" stroke=\"#222222\" stroke-width=\"2\"/>\n\
             <text x=\"{:.1}\" y=\"{}\">{}</text>\n",
            left - 8.0,
            middle + 4.0,
            y + 4.0,
            end - left,
            ROW - 8.0,
            at(spread.low),
            at(spread.high),
            at(spread.high).max(end) + 8.0,
            middle + 4.0,
            number(spread.median),
        );
        y += ROW;
    }
    drawn
}

//! The ratios as a picture.

use std::fmt::Write as _;

const ROW: usize = 18;
const LEFT: usize = 270;
const WIDTH: f64 = 520.0;
const TOP: usize = 46;

/// Ratios from a quarter to sixteen, by a logarithmic scale.
fn x(ratio: f64) -> f64 {
    let place = (ratio.clamp(0.25, 16.0).log2() + 2.0) / 6.0;
    LEFT as f64 + place * WIDTH
}

/// Two bars a workload: `millefs` and fuse-overlayfs as multiples of overlayfs's time.
pub(super) fn svg(ratios: &[(String, f64, Option<f64>)]) -> String {
    let height = TOP + ratios.len() * ROW + 20;
    let mut svg = String::new();
    let mut put = |line: String| {
        // Writing into a string cannot fail.
        writeln!(svg, "{line}").ok();
    };
    put(format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='{}' height='{height}' font-family='sans-serif' font-size='11'>\n\
         <rect width='100%' height='100%' fill='white'/>\n\
         <text x='10' y='16' font-size='13'>time as a multiple of the kernel's overlayfs (left is faster)</text>\n\
         <rect x='10' y='24' width='10' height='8' fill='#2a6fb0'/><text x='24' y='32'>millefs</text>\n\
         <rect x='80' y='24' width='10' height='8' fill='#d0a050'/><text x='94' y='32'>fuse-overlayfs</text>",
        LEFT as f64 + WIDTH + 60.0
    ));
    for line in [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0] {
        let colour = if line == 1.0 { "black" } else { "#ddd" };
        put(format!(
            "<line x1='{0:.1}' x2='{0:.1}' y1='{TOP}' y2='{1}' stroke='{colour}'/><text x='{0:.1}' y='{2}' text-anchor='middle'>{line}</text>",
            x(line),
            height - 16,
            height - 4
        ));
    }
    for (index, (name, ours, theirs)) in ratios.iter().enumerate() {
        let y = TOP + index * ROW;
        put(format!(
            "<text x='{}' y='{}' text-anchor='end'>{name}</text>",
            LEFT - 6,
            y + 12
        ));
        let mut bar = |ratio: f64, y: usize, colour: &str| {
            let (from, to) = (x(1.0).min(x(ratio)), x(1.0).max(x(ratio)));
            put(format!(
                "<rect x='{from:.1}' y='{y}' width='{:.1}' height='6' fill='{colour}'><title>{ratio:.2}</title></rect>",
                (to - from).max(1.0)
            ));
        };
        bar(*ours, y + 2, "#2a6fb0");
        if let Some(theirs) = theirs {
            bar(*theirs, y + 9, "#d0a050");
        }
    }
    svg.push_str("</svg>\n");
    svg
}

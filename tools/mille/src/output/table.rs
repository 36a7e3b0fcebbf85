//! Columns as Go's tabwriter lays them out for docker: cells end at a tab, a column is at least ten wide and three wider
//! than its widest cell, the last cell of a line belongs to no column.

/// Least width of a column.
const LEAST: usize = 10;
/// Blanks after the widest cell.
const PADDING: usize = 3;

/// Lays out lines whose cells are separated by tabs; every line ends with a newline.
pub(crate) fn layout(text: &str) -> String {
    layout_at_least(text, LEAST)
}

/// The same with another least width.
pub(crate) fn layout_at_least(text: &str, least: usize) -> String {
    let lines: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split('\t').collect())
        .collect();
    let mut widths = vec![Vec::new(); lines.len()];
    measure(&lines, least, 0, 0..lines.len(), &mut widths);
    let mut out = String::with_capacity(text.len() * 2);
    for (cells, widths) in lines.iter().zip(&widths) {
        for (index, cell) in cells.iter().enumerate() {
            out.push_str(cell);
            if let Some(width) = widths.get(index) {
                out.extend(std::iter::repeat_n(
                    ' ',
                    width.saturating_sub(cell.chars().count()),
                ));
            }
        }
        out.push('\n');
    }
    out
}

/// Finds the widths of a column and of those right of it. A column is made of consecutive lines; one that ends before
/// it divides it in two.
fn measure(
    lines: &[Vec<&str>],
    least: usize,
    column: usize,
    range: std::ops::Range<usize>,
    widths: &mut [Vec<usize>],
) {
    let cell = |line: usize| {
        lines
            .get(line)
            .filter(|cells| column + 1 < cells.len())
            .and_then(|cells| cells.get(column))
    };
    let mut start = range.start;
    while start < range.end {
        let end = (start..range.end)
            .find(|line| cell(*line).is_none())
            .unwrap_or(range.end);
        if end == start {
            start += 1;
            continue;
        }
        let widest = (start..end)
            .filter_map(cell)
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0);
        for line in widths.iter_mut().take(end).skip(start) {
            line.push(least.max(widest + PADDING));
        }
        measure(lines, least, column + 1, start..end, widths);
        start = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_tabwriters() {
        for (given, want) in [
            (
                "CONTAINER ID\tIMAGE\tCOMMAND\tCREATED\tSTATUS\tPORTS\tNAMES\n",
                "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES\n",
            ),
            (
                "REPOSITORY\tTAG\tIMAGE ID\tCREATED\tSIZE\n<none>\t<none>\t0123456789ab\tLess than a second ago\t1.98MB\n",
                "REPOSITORY   TAG       IMAGE ID       CREATED                  SIZE\n\
                 <none>       <none>    0123456789ab   Less than a second ago   1.98MB\n",
            ),
            (
                "IMAGE\tCREATED\tCREATED BY\tSIZE\tCOMMENT\n0123456789ab\t1 second ago\tsh -c rm /f\t0B\t\n",
                "IMAGE          CREATED        CREATED BY    SIZE      COMMENT\n\
                 0123456789ab   1 second ago   sh -c rm /f   0B        \n",
            ),
            ("NAMES\nx\n", "NAMES\nx\n"),
            ("a\tb\nc\nd\te\n", "a         b\nc\nd         e\n"),
            ("é…\tx\n", "é…        x\n"),
            ("", ""),
        ] {
            assert_eq!(layout(given), want);
        }
    }
}

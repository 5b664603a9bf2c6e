//! Tables as RFC 4180 has them, which spreadsheets can be trusted with.

use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, header};

const KIND: HeaderValue = HeaderValue::from_static("text/csv; charset=utf-8; header=present");

#[derive(Debug, Clone, Copy)]
pub(super) enum Cell<'a> {
    Text(&'a str),
    Number(u64),
    Empty,
}

#[derive(Debug)]
pub(super) struct Csv(String);

impl Csv {
    pub(super) fn new(columns: &[&str]) -> Self {
        let mut csv = Self(String::new());
        let columns: Vec<Cell<'_>> = columns.iter().copied().map(Cell::Text).collect();
        csv.row(&columns);
        csv
    }

    pub(super) fn row(&mut self, cells: &[Cell<'_>]) {
        for (at, cell) in cells.iter().enumerate() {
            if at > 0 {
                self.0.push(',');
            }
            match cell {
                Cell::Text(text) => self.text(text),
                Cell::Number(number) => self.0 += &number.to_string(),
                Cell::Empty => {}
            }
        }
        self.0 += "\r\n";
    }

    fn text(&mut self, text: &str) {
        let is_quoted = text.contains([',', '"', '\r', '\n']);
        if is_quoted {
            self.0.push('"');
        }
        // A spreadsheet would take it for a formula, and anybody may be a referrer.
        if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
            self.0.push('\'');
        }
        if is_quoted {
            self.0 += &text.replace('"', "\"\"");
            self.0.push('"');
        } else {
            self.0 += text;
        }
    }

    /// The table as a file. The name is of what can stand in one: letters, digits, and
    /// what slugs have besides.
    pub(super) fn answer(self, name: &str) -> Response {
        let mut response = self.0.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, KIND);
        let disposition = format!("attachment; filename=\"{name}.csv\"");
        let disposition = HeaderValue::try_from(disposition).expect("the name is visible ASCII");
        headers.insert(header::CONTENT_DISPOSITION, disposition);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_holds_any_text_and_is_no_formula() {
        let mut csv = Csv::new(&["value", "clicks"]);
        for text in [
            "plain",
            "a,b",
            "say \"hi\"",
            "=1+1",
            "-2,5",
            "@SUM",
            "two\nlines",
        ] {
            csv.row(&[Cell::Text(text), Cell::Number(7)]);
        }
        csv.row(&[Cell::Empty, Cell::Number(0)]);
        let expected = "value,clicks\r\nplain,7\r\n\"a,b\",7\r\n\"say \"\"hi\"\"\",7\r\n'=1+1,7\r\n\
                        \"'-2,5\",7\r\n'@SUM,7\r\n\"two\nlines\",7\r\n,0\r\n";
        assert_eq!(csv.0, expected);
    }
}

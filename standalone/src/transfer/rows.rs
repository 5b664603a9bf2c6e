//! Links on their way out of a file, row by row.

use std::cell::Cell;
use std::io::{self, BufRead as _, BufReader, Read};
use std::rc::Rc;

use serde_json::Value;

use super::{Format, Stop};

/// Bytes of one row, a multiple of what the largest link has. A quote that is never closed
/// must not take the whole file into memory.
const MAX_ROW: usize = 1 << 20;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One row: its fields by name, in their order, or what is wrong with it.
#[derive(Debug)]
pub(super) struct Row {
    /// From 1. A row of CSV may have several lines; it is the first.
    pub(super) line: u64,
    pub(super) fields: Result<Vec<(String, Value)>, String>,
}

/// A file that is being read.
pub(super) enum Rows {
    Jsonl {
        reader: BufReader<Box<dyn Read>>,
        line: u64,
    },
    Csv {
        reader: Box<csv::Reader<Bounded>>,
        left: Rc<Cell<usize>>,
        header: Option<csv::StringRecord>,
    },
}

/// A source of which so much may be read.
#[derive(Debug)]
pub(super) struct Bounded<R = Box<dyn Read>> {
    source: R,
    left: Rc<Cell<usize>>,
}

impl Rows {
    pub(super) fn new(source: Box<dyn Read>, format: Format) -> Self {
        match format {
            Format::Jsonl => Self::Jsonl {
                reader: BufReader::new(source),
                line: 0,
            },
            Format::Csv => {
                let left = Rc::new(Cell::new(MAX_ROW));
                let bounded = Bounded {
                    source,
                    left: Rc::clone(&left),
                };
                Self::Csv {
                    reader: Box::new(csv::Reader::from_reader(bounded)),
                    left,
                    header: None,
                }
            }
        }
    }

    /// The next row; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Row>, Stop> {
        match self {
            Self::Jsonl { reader, line } => next_line(reader, line),
            Self::Csv {
                reader,
                left,
                header,
            } => next_record(reader, left, header),
        }
    }
}

fn next_line(reader: &mut BufReader<Box<dyn Read>>, line: &mut u64) -> Result<Option<Row>, Stop> {
    let mut text = Vec::new();
    loop {
        text.clear();
        let read = reader
            .by_ref()
            .take(MAX_ROW as u64 + 1)
            .read_until(b'\n', &mut text)
            .and_then(|read| match read {
                0..=MAX_ROW => Ok(read),
                _ => Err(too_long()),
            });
        if read.map_err(|source| stop(*line, source))? == 0 {
            return Ok(None);
        }
        *line += 1;
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&text);
        let text = text.trim_ascii();
        if text.is_empty() {
            continue;
        }
        let fields = serde_json::from_slice::<serde_json::Map<String, Value>>(text)
            .map(|object| object.into_iter().collect())
            .map_err(|error| format!("It is no JSON object: {error}."));
        return Ok(Some(Row {
            line: *line,
            fields,
        }));
    }
}

fn next_record(
    reader: &mut csv::Reader<Bounded>,
    left: &Cell<usize>,
    header: &mut Option<csv::StringRecord>,
) -> Result<Option<Row>, Stop> {
    left.set(MAX_ROW);
    let line = reader.position().line();
    let names = match header {
        Some(names) => names,
        None => header.insert(
            reader
                .headers()
                .map_err(|error| stop(line, error.into()))?
                .clone(),
        ),
    };
    let mut record = csv::StringRecord::new();
    let (line, fields) = match reader.read_record(&mut record) {
        Ok(false) => return Ok(None),
        Ok(true) => {
            let values = record.iter().map(|cell| Value::from(cell.trim()));
            let fields = names.iter().map(str::to_owned).zip(values).collect();
            let line = record.position().map_or(line, csv::Position::line);
            (line, Ok(fields))
        }
        Err(error) => match error.kind() {
            csv::ErrorKind::Utf8 { pos: Some(pos), .. } => {
                (pos.line(), Err("It is not in UTF-8.".to_owned()))
            }
            csv::ErrorKind::UnequalLengths {
                pos: Some(pos),
                expected_len,
                len,
            } => (
                pos.line(),
                Err(format!(
                    "It has {len} fields, the header has {expected_len}."
                )),
            ),
            _ => return Err(stop(line, error.into())),
        },
    };
    Ok(Some(Row { line, fields }))
}

fn stop(line: u64, source: io::Error) -> Stop {
    Stop::Input { line, source }
}

fn too_long() -> io::Error {
    let problem = format!("a row has more than {MAX_ROW} bytes; is a quote left open?");
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 {
            return Err(too_long());
        }
        let room = buffer.len().min(left);
        let read = self.source.read(&mut buffer[..room])?;
        self.left.set(left - read);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8], format: Format) -> Vec<Result<Row, Stop>> {
        let mut rows = Rows::new(Box::new(io::Cursor::new(text.to_vec())), format);
        let mut all = Vec::new();
        loop {
            match rows.next() {
                Ok(None) => return all,
                Ok(Some(row)) => all.push(Ok(row)),
                Err(stop) => {
                    all.push(Err(stop));
                    return all;
                }
            }
        }
    }

    #[test]
    fn a_bad_row_is_told_by_its_line_and_the_next_one_is_read() {
        let csv = b"\xef\xbb\xbfslug,url\na1b,https://example.com/\n\"two\nlines\",b\none\n\
                    \xff\xfe,d\nlast,e\n";
        let rows: Vec<Row> = all(csv, Format::Csv)
            .into_iter()
            .map(Result::unwrap)
            .collect();
        let lines: Vec<_> = rows
            .iter()
            .map(|row| (row.line, row.fields.is_ok()))
            .collect();
        assert_eq!(
            lines,
            [(2, true), (3, true), (5, false), (6, false), (7, true)]
        );
        assert_eq!(rows[0].fields.as_ref().unwrap()[0].0, "slug");
        let jsonl = b"\xef\xbb\xbf{\"slug\":\"a\"}\n\nnone\n{\"slug\":\"b\"}";
        let rows: Vec<Row> = all(jsonl, Format::Jsonl)
            .into_iter()
            .map(Result::unwrap)
            .collect();
        let lines: Vec<_> = rows
            .iter()
            .map(|row| (row.line, row.fields.is_ok()))
            .collect();
        assert_eq!(lines, [(1, true), (3, false), (4, true)]);
    }

    #[test]
    fn a_row_without_end_stops_and_does_not_fill_memory() {
        let open = [b"slug,url\na,\"", &*vec![b'x'; 3 * MAX_ROW]].concat();
        assert!(matches!(
            &all(&open, Format::Csv)[..],
            [Err(Stop::Input { .. })]
        ));
        let endless = vec![b'x'; 3 * MAX_ROW];
        assert!(matches!(
            &all(&endless, Format::Jsonl)[..],
            [Err(Stop::Input { .. })]
        ));
    }
}

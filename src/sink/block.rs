//! Owns the layout of rows on the wire: ClickHouse's Native format, a block of whole columns.
//!
//! Columns instead of rows, because the engine takes them in without parsing, they compress better, and each
//! carries its name and type: a table that has changed is refused, never misread.
//!
//! **Invariant:** every column of a block has as many values as the block has rows, each written under the
//! name and the type that the schema gives it. Must not know what a row means.

use chrono::NaiveDate;

use crate::time::Timestamp;

/// Type of a column, as far as the sink's tables need them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `String`.
    Text,
    /// `LowCardinality(String)`; sent as `String`, the engine makes the dictionary.
    Name,
    /// `UInt16`.
    U16,
    /// `UInt32`.
    U32,
    /// `UInt64`.
    U64,
    /// `Int32`.
    I32,
    /// `Int64`.
    I64,
    /// `DateTime64(3, 'UTC')`.
    Time,
    /// The same, `NULL` where there is none.
    TimeOrNull,
    /// `DateTime('UTC')`.
    Seconds,
    /// `Nullable(Date)`.
    DayOrNull,
    /// `Decimal(digits, places)`.
    Decimal(u8, u8),
    /// `Array(Tuple(…))`.
    List(&'static [(&'static str, Kind)]),
}

/// A table that the sink writes: its name, and the columns that it fills.
#[derive(Debug)]
pub struct Schema {
    /// Name of the table.
    pub table: &'static str,
    /// Names and types.
    pub columns: &'static [(&'static str, Kind)],
}

/// Rows of one table that are being put together.
#[derive(Debug)]
pub struct Block {
    schema: &'static Schema,
    columns: Vec<Values>,
    rows: u64,
}

/// The values of a column so far, as the format lays them out.
#[derive(Debug)]
enum Values {
    Plain(Vec<u8>),
    Nullable { is_null: Vec<u8>, values: Vec<u8> },
    List { ends: Vec<u8>, length: u64, fields: Vec<Values> },
}

/// Writes the columns of one row, in the order of the schema.
pub struct RowWriter<'b> {
    columns: std::iter::Zip<std::slice::Iter<'static, (&'static str, Kind)>, std::slice::IterMut<'b, Values>>,
}

impl Kind {
    /// The type as `DESCRIBE TABLE` spells it.
    pub fn in_table(self) -> String {
        match self {
            Kind::Name => "LowCardinality(String)".to_owned(),
            Kind::List(fields) => tuple_list(fields, Kind::in_table),
            other => other.on_the_wire(),
        }
    }

    /// The type that a block declares.
    fn on_the_wire(self) -> String {
        match self {
            Kind::Text | Kind::Name => "String".to_owned(),
            Kind::U16 => "UInt16".to_owned(),
            Kind::U32 => "UInt32".to_owned(),
            Kind::U64 => "UInt64".to_owned(),
            Kind::I32 => "Int32".to_owned(),
            Kind::I64 => "Int64".to_owned(),
            Kind::Time => "DateTime64(3, 'UTC')".to_owned(),
            Kind::TimeOrNull => "Nullable(DateTime64(3, 'UTC'))".to_owned(),
            Kind::Seconds => "DateTime('UTC')".to_owned(),
            Kind::DayOrNull => "Nullable(Date)".to_owned(),
            Kind::Decimal(digits, places) => format!("Decimal({digits}, {places})"),
            Kind::List(fields) => tuple_list(fields, Kind::on_the_wire),
        }
    }
}

fn tuple_list(fields: &[(&str, Kind)], spelling: fn(Kind) -> String) -> String {
    let fields: Vec<String> =
        fields.iter().map(|(name, kind)| format!("{name} {}", spelling(*kind))).collect();
    format!("Array(Tuple({}))", fields.join(", "))
}

impl Values {
    fn new(kind: Kind) -> Values {
        match kind {
            Kind::TimeOrNull | Kind::DayOrNull => {
                Values::Nullable { is_null: Vec::new(), values: Vec::new() }
            }
            Kind::List(fields) => Values::List {
                ends: Vec::new(),
                length: 0,
                fields: fields.iter().map(|(_, kind)| Values::new(*kind)).collect(),
            },
            _ => Values::Plain(Vec::new()),
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        match self {
            Values::Plain(values) => values.extend_from_slice(bytes),
            Values::Nullable { is_null, values } => {
                is_null.push(0);
                values.extend_from_slice(bytes);
            }
            Values::List { .. } => unreachable!("a list has fields, no bytes of its own"),
        }
    }

    fn put_null(&mut self, zeros: &[u8]) {
        match self {
            Values::Nullable { is_null, values } => {
                is_null.push(1);
                values.extend_from_slice(zeros);
            }
            Values::Plain(_) | Values::List { .. } => unreachable!("only a nullable column takes NULL"),
        }
    }

    fn put_text(&mut self, text: &str) {
        match self {
            Values::Plain(values) => write_text(values, text),
            Values::Nullable { .. } | Values::List { .. } => {
                unreachable!("texts are never NULL and no lists")
            }
        }
    }

    fn byte_count(&self) -> usize {
        match self {
            Values::Plain(values) => values.len(),
            Values::Nullable { is_null, values } => is_null.len() + values.len(),
            Values::List { ends, fields, .. } => {
                ends.len() + fields.iter().map(Values::byte_count).sum::<usize>()
            }
        }
    }

    fn write_to(&self, body: &mut Vec<u8>) {
        match self {
            Values::Plain(values) => body.extend_from_slice(values),
            Values::Nullable { is_null, values } => {
                body.extend_from_slice(is_null);
                body.extend_from_slice(values);
            }
            Values::List { ends, fields, .. } => {
                body.extend_from_slice(ends);
                for field in fields {
                    field.write_to(body);
                }
            }
        }
    }
}

impl Block {
    /// No rows yet.
    pub fn new(schema: &'static Schema) -> Block {
        let columns = schema.columns.iter().map(|(_, kind)| Values::new(*kind)).collect();
        Block { schema, columns, rows: 0 }
    }

    /// The table that the rows are for.
    pub fn schema(&self) -> &'static Schema {
        self.schema
    }

    /// How many rows there are.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Begins a row; all its columns must be written, then [`RowWriter::end`] called.
    pub fn row(&mut self) -> RowWriter<'_> {
        self.rows += 1;
        RowWriter { columns: self.schema.columns.iter().zip(self.columns.iter_mut()) }
    }

    /// The block as Native has it: the same rows give the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let value_bytes: usize = self.columns.iter().map(Values::byte_count).sum();
        let mut body = Vec::with_capacity(value_bytes + 128 * self.columns.len());
        write_varint(&mut body, self.columns.len() as u64);
        write_varint(&mut body, self.rows);
        for ((name, kind), values) in self.schema.columns.iter().zip(&self.columns) {
            write_text(&mut body, name);
            write_text(&mut body, &kind.on_the_wire());
            values.write_to(&mut body);
        }
        body
    }
}

/// Writes one kind of number under its name.
macro_rules! number {
    ($($method:ident: $type:ty = $kind:pat, $meaning:literal;)*) => {
        $(#[doc = $meaning]
        pub fn $method(&mut self, name: &'static str, value: $type) {
            self.next(name, |kind| matches!(kind, $kind)).put(&value.to_le_bytes());
        })*
    };
}

impl RowWriter<'_> {
    number! {
        u16: u16 = Kind::U16, "A `UInt16`.";
        u32: u32 = Kind::U32, "A `UInt32`.";
        u64: u64 = Kind::U64, "A `UInt64`.";
        i32: i32 = Kind::I32, "An `Int32`.";
        i64: i64 = Kind::I64, "An `Int64`.";
        seconds: u32 = Kind::Seconds, "A `DateTime`: seconds since 1970.";
    }

    /// A `String` or `LowCardinality(String)`.
    pub fn text(&mut self, name: &'static str, value: &str) {
        self.next(name, |kind| matches!(kind, Kind::Text | Kind::Name)).put_text(value);
    }

    /// A `DateTime64(3)`.
    pub fn time(&mut self, name: &'static str, value: Timestamp) {
        self.next(name, |kind| kind == Kind::Time).put(&value.millis().to_le_bytes());
    }

    /// A `Nullable(DateTime64(3))`.
    pub fn time_or_null(&mut self, name: &'static str, value: Option<Timestamp>) {
        let column = self.next(name, |kind| kind == Kind::TimeOrNull);
        match value {
            Some(at) => column.put(&at.millis().to_le_bytes()),
            None => column.put_null(&[0; 8]),
        }
    }

    /// A `Nullable(Date)`. The type ends in 2149: what is outside is shown as its nearest day.
    pub fn day_or_null(&mut self, name: &'static str, value: Option<NaiveDate>) {
        let column = self.next(name, |kind| kind == Kind::DayOrNull);
        match value {
            Some(day) => column.put(&days_since_1970(day).to_le_bytes()),
            None => column.put_null(&[0; 2]),
        }
    }

    /// A `Decimal` of at most 9 digits: a count of its last place.
    pub fn decimal32(&mut self, name: &'static str, units: i32) {
        self.next(name, |kind| matches!(kind, Kind::Decimal(digits, _) if digits <= 9))
            .put(&units.to_le_bytes());
    }

    /// A `Decimal` of 10 to 18 digits: a count of its last place.
    pub fn decimal64(&mut self, name: &'static str, units: i64) {
        let column = self.next(name, |kind| matches!(kind, Kind::Decimal(digits, _) if digits > 9));
        column.put(&units.to_le_bytes());
    }

    /// An `Array(Tuple)`: `write` writes the fields of one item.
    pub fn list<T>(
        &mut self,
        name: &'static str,
        items: impl Iterator<Item = T>,
        write: impl Fn(&mut RowWriter<'_>, T),
    ) {
        let (declared, kind, column) = self.take();
        debug_assert_eq!(declared, name, "columns are written in the schema's order");
        let (Kind::List(kinds), Values::List { ends, length, fields }) = (kind, column) else {
            unreachable!("{name} is declared as a list");
        };
        for item in items {
            let mut writer = RowWriter { columns: kinds.iter().zip(fields.iter_mut()) };
            write(&mut writer, item);
            writer.end();
            *length += 1;
        }
        ends.extend_from_slice(&length.to_le_bytes());
    }

    /// Ends the row.
    pub fn end(mut self) {
        debug_assert!(self.columns.next().is_none(), "a row has a value for every column");
    }

    fn next(&mut self, name: &'static str, is_right: impl Fn(Kind) -> bool) -> &mut Values {
        let (declared, kind, values) = self.take();
        debug_assert_eq!(declared, name, "columns are written in the schema's order");
        debug_assert!(is_right(kind), "{name} is declared as {kind:?}");
        values
    }

    fn take(&mut self) -> (&'static str, Kind, &mut Values) {
        let ((name, kind), values) = self.columns.next().expect("a row has no more values than columns");
        (name, *kind, values)
    }
}

fn days_since_1970(day: NaiveDate) -> u16 {
    let days = day.signed_duration_since(NaiveDate::default()).num_days();
    u16::try_from(days.max(0)).unwrap_or(u16::MAX)
}

fn write_text(bytes: &mut Vec<u8>, text: &str) {
    write_varint(bytes, text.len() as u64);
    bytes.extend_from_slice(text.as_bytes());
}

/// LEB128, as all lengths are written.
fn write_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value as u8) | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

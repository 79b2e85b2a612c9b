//! The work of a transaction at a database: SQL, with how many rows each statement must change.

use super::session::{Failure, Session};
use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::{Value, json};
use std::pin::pin;
use tokio_postgres::types::{Format, IsNull, ToSql, Type, to_sql_checked};

/// Statements in one piece of work.
const STATEMENTS_MAX: usize = 64;
/// Rows that one statement may give.
const ROWS_MAX: usize = 1_000;
/// Bytes of JSON that one piece of work may give.
const ANSWER_BYTES_MAX: usize = 256 << 10;
/// What a statement may begin with. Nothing here can end the transaction, or begin another.
const ALLOWED: [&str; 8] = ["SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "WITH", "VALUES", "TABLE"];

/// One statement, as a client writes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sql {
    sql: String,
    /// Text in PostgreSQL's own notation, for `$1`, `$2` and so on.
    #[serde(default)]
    parameters: Vec<Value>,
    /// How many rows it must change, or give. Without, any number will do.
    rows: Option<u64>,
}

/// Reads a piece of work: a JSON list of statements.
pub(super) fn parse(work: &[u8]) -> Result<Vec<Sql>, Failure> {
    let form = r#"[{"sql":"update accounts set balance = balance - $1 where name = $2","parameters":["100","a"],"rows":1}]"#;
    let statements: Vec<Sql> = serde_json::from_slice(work).map_err(|error| {
        Failure::Declined(format!("the work of a database is not understood ({error}): write {form}"))
    })?;
    if statements.is_empty() || statements.len() > STATEMENTS_MAX {
        return Err(Failure::Declined(format!("a piece of work has 1 to {STATEMENTS_MAX} statements")));
    }
    for statement in &statements {
        let word: String =
            statement.sql.trim_start().chars().take_while(|letter| letter.is_ascii_alphabetic()).collect();
        if !ALLOWED.iter().any(|allowed| allowed.eq_ignore_ascii_case(&word)) {
            let why = format!("a statement begins with one of {}, not with {word:?}", ALLOWED.join(", "));
            return Err(Failure::Declined(why));
        }
    }
    Ok(statements)
}

/// Does the work inside the session's open transaction. The answer is a JSON list with, for each statement, how many rows
/// it changed or gave, and those that it gave. After a failure the transaction can only be rolled back.
pub(super) async fn run(session: &mut Session, work: &[Sql]) -> Result<Bytes, Failure> {
    let mut answers = Vec::with_capacity(work.len());
    let mut bytes = 0;
    for (place, statement) in work.iter().enumerate() {
        let (rows, values) = run_one(session, statement, &mut bytes).await?;
        if statement.rows.is_some_and(|expected| expected != rows) {
            let expected = statement.rows.unwrap_or_default();
            let why =
                format!("statement {} found {rows} rows and not {expected}: {}", place + 1, statement.sql);
            return Err(Failure::Declined(super::super::one_line(&why)));
        }
        answers.push(match values {
            Some(values) => json!({"rows": rows, "values": values}),
            None => json!({"rows": rows}),
        });
    }
    Ok(Bytes::from(Value::Array(answers).to_string()))
}

async fn run_one(
    session: &mut Session,
    statement: &Sql,
    bytes: &mut usize,
) -> Result<(u64, Option<Vec<Value>>), Failure> {
    let parameters = statement.parameters.iter().map(Parameter::of).collect::<Result<Vec<_>, _>>()?;
    let prepared = session.prepare(&statement.sql).await?;
    let expected = prepared.statement.params().len();
    if expected != parameters.len() {
        let given = parameters.len();
        return Err(Failure::Declined(format!("the statement takes {expected} parameters and got {given}")));
    }
    let client = session.client();
    if !prepared.gives_rows {
        let rows = session.within(client.execute_raw(&prepared.statement, &parameters)).await?;
        return Ok((rows, None));
    }
    let mut rows = pin!(session.within(client.query_raw(&prepared.statement, &parameters)).await?);
    let mut values = Vec::new();
    while let Some(row) = session.within(next(rows.as_mut())).await? {
        let text: String = row.try_get(0).map_err(|error| Failure::of(&error))?;
        *bytes += text.len();
        if values.len() >= ROWS_MAX || *bytes > ANSWER_BYTES_MAX {
            let why =
                format!("the work gives more than {ROWS_MAX} rows or {ANSWER_BYTES_MAX} bytes: ask for less");
            return Err(Failure::Declined(why));
        }
        values.push(serde_json::from_str(&text).unwrap_or(Value::String(text)));
    }
    Ok((values.len() as u64, Some(values)))
}

async fn next(
    mut rows: std::pin::Pin<&mut tokio_postgres::RowStream>,
) -> Result<Option<tokio_postgres::Row>, tokio_postgres::Error> {
    use futures_util::Stream;
    std::future::poll_fn(|context| rows.as_mut().poll_next(context)).await.transpose()
}

/// A parameter as text, which the server reads as whatever type the statement wants there.
#[derive(Debug)]
struct Parameter(Option<String>);

impl Parameter {
    fn of(value: &Value) -> Result<Parameter, Failure> {
        match value {
            Value::Null => Ok(Parameter(None)),
            Value::String(text) => Ok(Parameter(Some(text.clone()))),
            Value::Bool(_) | Value::Number(_) => Ok(Parameter(Some(value.to_string()))),
            Value::Array(_) | Value::Object(_) => Err(Failure::Declined(format!(
                "a parameter is text, a number, true, false or null, not {value}"
            ))),
        }
    }
}

impl ToSql for Parameter {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        let Some(text) = &self.0 else { return Ok(IsNull::Yes) };
        out.put_slice(text.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

//! What is backed up: rows that the server computes from their numbers, in parts that stay as they were inserted.

use std::path::Path;

use backup_testkit::ClickHouse as Server;

use crate::yardstick;

type Error = Box<dyn std::error::Error>;

/// How a table is made, and what a row is by its `number`.
struct Table {
    name: &'static str,
    columns: &'static str,
    partition: &'static str,
    order: &'static str,
    row: &'static str,
    /// Rows of one insert.
    rows: u64,
}

/// Visits, sales and lines of a log: columns that compress as differently as those of servers do.
const TABLES: [Table; 3] = [
    Table {
        name: "visits",
        columns: "at DateTime, user UInt64, session UUID, page LowCardinality(String), address String, took Float32, \
                  status UInt16, tags Array(LowCardinality(String)), country FixedString(2)",
        partition: "toYYYYMM(at)",
        order: "(page, at)",
        row: "toDateTime('2025-01-01 00:00:00', 'UTC') + intDiv(number, 8), cityHash64(number) % 300000, \
              reinterpretAsUUID(sipHash128(number)), \
              ['/', '/search', '/cart', '/help', '/account'][1 + cityHash64(number, 1) % 5], \
              concat('https://shop.example/item/', toString(cityHash64(number, 2) % 90000), '?from=', \
                     ['mail', 'search', 'partner'][1 + number % 3]), \
              cityHash64(number, 3) % 100000 / 1000, [200, 200, 200, 304, 404, 500][1 + cityHash64(number, 4) % 6], \
              arrayMap(n -> concat('tag', toString(n % 17)), range(cityHash64(number, 5) % 4)), \
              ['de', 'fi', 'ca', 'au', 'jp'][1 + cityHash64(number, 6) % 5]",
        rows: 1_000_000,
    },
    Table {
        name: "sales",
        columns: "id UInt64, day Date, customer UInt32, amount Decimal(12, 2), items Array(UInt32), note Nullable(String)",
        partition: "toYear(day)",
        order: "id",
        row: "number, toDate('2024-06-01') + intDiv(number, 4000) % 900, cityHash64(number, 7) % 100000, \
              toDecimal64(cityHash64(number, 8) % 5000000 / 100, 2), \
              arrayMap(n -> toUInt32(cityHash64(number, n) % 20000), range(1 + number % 5)), \
              if(number % 7 = 0, concat('gift for customer ', toString(cityHash64(number, 9) % 1000)), NULL)",
        rows: 600_000,
    },
    Table {
        name: "log",
        columns: "at DateTime64(3), host LowCardinality(String), level Enum8('info' = 1, 'warning' = 2, 'error' = 3), message String",
        partition: "toYYYYMMDD(at)",
        order: "(host, at)",
        row: "toDateTime64('2025-03-01 00:00:00', 3, 'UTC') + intDiv(number, 40), concat('host-', toString(number % 40)), \
              1 + (cityHash64(number, 10) % 20 = 0) + (cityHash64(number, 11) % 90 = 0), \
              concat(['request ', 'job ', 'connection '][1 + cityHash64(number, 12) % 3], hex(cityHash64(number, 13)), \
                     ' ended after ', toString(cityHash64(number, 14) % 9000), ' ms')",
        rows: 800_000,
    },
];

/// Measurements of a hundred devices; a part for each device and insert.
const SMALL: &str = "measured";
/// Columns of it, two files each.
const COLUMNS: u64 = 40;
/// Parts of one insert.
const PARTS: u64 = 100;

/// What a server is filled with.
#[derive(Debug)]
pub(super) struct Dataset {
    bytes: u64,
    files: Option<u64>,
}

impl Dataset {
    /// About `bytes` of parts, in about `files` files if that is said.
    pub(super) fn new(bytes: u64, files: Option<u64>) -> Self {
        Self { bytes, files }
    }

    /// Makes the tables and fills them.
    pub(super) async fn fill(&self, server: &Server) -> Result<(), Error> {
        server.query("CREATE DATABASE bench").await?;
        match self.files {
            None => self.fill_tables(server).await,
            Some(files) => self.fill_small(server, files).await,
        }
    }

    /// Adds about a hundredth.
    pub(super) async fn grow(&self, server: &Server) -> Result<(), Error> {
        let (name, columns) = match self.files {
            None => ("visits", "* REPLACE (at + 1 AS at, cityHash64(session) AS user)".to_owned()),
            Some(_) => (SMALL, "* REPLACE (value0 + 1 AS value0)".to_owned()),
        };
        let table: u64 = server.query(&format!("SELECT count() FROM bench.{name}")).await?.parse()?;
        let share = bytes(server, Some(name)).await? as f64 / bytes(server, None).await? as f64;
        let rows = (table as f64 / 100.0 / share) as u64;
        // In one piece, as a server that is written to gets them.
        let order = if self.files.is_some() { "device, at" } else { "page, at" };
        let sql = format!(
            "INSERT INTO bench.{name} SELECT {columns} FROM bench.{name} ORDER BY {order} LIMIT {rows} {ONE_BLOCK}"
        );
        server.query(&sql).await?;
        Ok(())
    }

    /// Whether two servers have the same.
    pub(super) async fn digest(&self, server: &Server) -> Result<String, Error> {
        let names = if self.files.is_some() { vec![SMALL] } else { TABLES.map(|table| table.name).to_vec() };
        let mut all = Vec::new();
        for name in names {
            let sql = format!("SELECT count(), sum(cityHash64(tuple(*))) FROM bench.{name}");
            all.push(format!("{name}: {}", server.query(&sql).await?));
        }
        Ok(all.join(", "))
    }

    async fn fill_tables(&self, server: &Server) -> Result<(), Error> {
        for table in &TABLES {
            make(server, table.name, table.columns, table.partition, table.order).await?;
            let (mut rows, mut has) = (0, 0);
            while has < self.bytes / TABLES.len() as u64 {
                insert(server, table.name, table.row, rows, table.rows).await?;
                rows += table.rows;
                has = bytes(server, Some(table.name)).await?;
            }
        }
        Ok(())
    }

    async fn fill_small(&self, server: &Server, files: u64) -> Result<(), Error> {
        let numbers = 0..COLUMNS;
        let columns: String = numbers.clone().map(|n| format!(", value{n} UInt32")).collect();
        let columns = format!("device UInt16, at DateTime{columns}");
        make(server, SMALL, &columns, "device", "at").await?;
        let values: String = numbers.map(|n| format!(", cityHash64(number, {n}) % {}", 50 << (n / 2))).collect();
        let row = |rows: u64| {
            format!(
                "intDiv(number, {rows}) % {PARTS}, toDateTime('2025-01-01 00:00:00', 'UTC') + number % {rows} {values}"
            )
        };
        // What a part of so many rows is, shows how many rows the parts have to have.
        const TRIAL: u64 = 4000;
        insert(server, SMALL, &row(TRIAL), 0, TRIAL).await?;
        let dir = server.data_dir().join("store");
        let (each, trial) = (trial_files(&dir)?, bytes(server, None).await?);
        server.query(&format!("TRUNCATE TABLE bench.{SMALL}")).await?;
        let parts = files.div_ceil(each);
        let rows = (TRIAL * self.bytes / parts / trial.max(1)).max(1);
        for begin in (0..parts).step_by(PARTS as usize) {
            let some = PARTS.min(parts - begin);
            insert(server, SMALL, &row(rows), begin * rows, some * rows).await?;
        }
        Ok(())
    }
}

/// Files of the only part that there is.
fn trial_files(dir: &Path) -> Result<u64, Error> {
    // Beside them there are the one of the table's format version, and the definitions of the database.
    Ok(yardstick::count(dir)?.saturating_sub(2).max(1))
}

/// A part for each partition that an insert has rows of.
const ONE_BLOCK: &str = "SETTINGS max_insert_threads = 1, max_threads = 1, max_partitions_per_insert_block = 0, \
                         min_insert_block_size_rows = 100000000, min_insert_block_size_bytes = 0";

async fn make(server: &Server, name: &str, columns: &str, partition: &str, order: &str) -> Result<(), Error> {
    let sql = format!(
        "CREATE TABLE bench.{name} ({columns}) ENGINE = MergeTree PARTITION BY {partition} ORDER BY {order} SETTINGS \
         min_bytes_for_wide_part = 0, min_rows_for_wide_part = 0, parts_to_delay_insert = 100000, \
         parts_to_throw_insert = 100000, max_parts_in_total = 1000000"
    );
    server.query(&sql).await?;
    server.query(&format!("SYSTEM STOP MERGES bench.{name}")).await?;
    Ok(())
}

async fn insert(server: &Server, name: &str, row: &str, begin: u64, rows: u64) -> Result<(), Error> {
    server.query(&format!("INSERT INTO bench.{name} SELECT {row} FROM numbers({begin}, {rows}) {ONE_BLOCK}")).await?;
    Ok(())
}

/// Bytes of the parts of one table, or of all.
async fn bytes(server: &Server, table: Option<&str>) -> Result<u64, Error> {
    let only = table.map(|name| format!(" AND table = '{name}'")).unwrap_or_default();
    let sql = format!("SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = 'bench'{only}");
    Ok(server.query(&sql).await?.parse()?)
}

//! Tables that both versions have, and those that the old one alone still makes.

use super::{Definition, ODD_DATABASE, ODD_TABLE, TableKind};

/// A day of the years 2020 to 2023, from the hash.
macro_rules! day {
    () => {
        "toDate('2020-01-01') + toUInt16(h % 1461)"
    };
}

pub(super) const BOTH: &[Definition] = &[
    Definition::parts(
        "scalars",
        "(n UInt64, u8 UInt8, u16 UInt16, u32 UInt32, i8 Int8, i16 Int16, i32 Int32, i64 Int64, f32 Float32, f64 Float64, \
         s String, fs FixedString(5), d Date, dt DateTime, id UUID, e8 Enum8('a' = -1, 'é' = 2), e16 Enum16('x' = 300, \
         'y' = -300), de Decimal(18, 4), def String DEFAULT concat('d', toString(n)), mat UInt64 MATERIALIZED n * 2, al \
         UInt64 ALIAS n * 3) ENGINE = MergeTree PARTITION BY n % 4 ORDER BY n",
        "n, h, h, h, h, h, h, h, toFloat32(h % 1000) / 7, toFloat64(h) / 3, concat('ключ\\t', toString(h)), \
         toFixedString(toString(h % 10000), 5), toDate('2020-01-01') + toUInt16(h % 1461), toDateTime('2020-01-01 00:00:00') \
         + toUInt32(h % 100000000), toUUID(concat('61f0c404-5cb3-11e7-907b-', substring(hex(h), 1, 12))), if(h % 2 = 0, 'a', \
         'é'), if(h % 3 = 0, 'x', 'y'), toDecimal64(toInt64(h % 1000000), 4), if(h % 5 = 0, 'given', concat('d', toString(n)))",
    ),
    Definition::parts(
        "composites",
        "(n UInt64, ns Nullable(String), nn Nullable(Int64), a Array(UInt32), an Array(Nullable(String)), aa \
         Array(Array(Int8)), t Tuple(UInt8, String), nest Nested(k String, v UInt64)) ENGINE = MergeTree ORDER BY n",
        "n, if(h % 3 = 0, NULL, toString(h)), if(h % 4 = 0, NULL, toInt64(h)), arrayMap(x -> toUInt32(x * h), range(h % 5)), \
         arrayMap(x -> if(x % 2 = 0, NULL, toString(x)), range(h % 4)), arrayMap(x -> arrayMap(y -> toInt8(y), range(x)), \
         range(h % 3)), tuple(toUInt8(h), toString(h)), arrayMap(x -> toString(x), range(h % 4)), arrayMap(x -> x * h, range(h % 4))",
    ),
    Definition::parts(
        "by_month",
        "(d Date, n UInt64, h UInt64, s String) ENGINE = MergeTree PARTITION BY toYYYYMM(d) ORDER BY (d, intHash32(n)) \
         SAMPLE BY intHash32(n)",
        concat!(day!(), ", n, h, toString(h % 100)"),
    ),
    Definition::parts(
        "by_tuple",
        "(d Date, kind String, n UInt64) ENGINE = MergeTree PARTITION BY (toYear(d), kind) ORDER BY n",
        concat!(day!(), ", if(h % 2 = 0, 'left', 'right'), n"),
    ),
    Definition::parts(
        "by_text",
        "(kind String, n UInt64) ENGINE = MergeTree PARTITION BY kind ORDER BY n",
        "if(h % 3 = 0, 'ein Ö', 'p/q'), n",
    ),
    Definition::parts(
        "low_cardinality",
        "(n UInt64, a LowCardinality(String), b LowCardinality(Nullable(String))) ENGINE = MergeTree ORDER BY n",
        "n, toString(h % 10), if(h % 3 = 0, NULL, toString(h % 7))",
    ),
    Definition::parts("empty", "(n UInt64) ENGINE = MergeTree ORDER BY n", ""),
    Definition::settled(
        "replacing",
        "(k UInt64, s String) ENGINE = ReplacingMergeTree PARTITION BY k % 2 ORDER BY k",
        "n % 50, toString(h)",
    ),
    Definition::settled(
        "replacing_version",
        "(k UInt64, s String, v UInt32) ENGINE = ReplacingMergeTree(v) ORDER BY k",
        "n % 50, toString(h), n",
    ),
    Definition::settled(
        "summing",
        "(k UInt64, a UInt64, b Int64) ENGINE = SummingMergeTree((a, b)) ORDER BY k",
        "n % 20, h % 1000, toInt64(h % 7) - 3",
    ),
    Definition::settled(
        "aggregating",
        "(k UInt64, s AggregateFunction(sum, UInt64), u AggregateFunction(uniqExact, String), q AggregateFunction(quantiles(0.5, \
         0.9), Float64), m AggregateFunction(max, String)) ENGINE = AggregatingMergeTree ORDER BY k",
        "n % 20 AS k, arrayReduce('sumState', [toUInt64(h % 1000)]), arrayReduce('uniqExactState', [toString(h % 9)]), \
         arrayReduce('quantilesState(0.5, 0.9)', [toFloat64(h % 100)]), arrayReduce('maxState', [toString(h)])",
    ),
    Definition::settled(
        "collapsing",
        "(k UInt64, s String, sign Int8) ENGINE = CollapsingMergeTree(sign) ORDER BY k",
        "intDiv(n, 3), toString(intDiv(n, 3)), if(n % 3 = 1, -1, 1)",
    ),
    Definition::settled(
        "versioned_collapsing",
        "(k UInt64, v UInt64, s String, sign Int8) ENGINE = VersionedCollapsingMergeTree(sign, v) ORDER BY k",
        "intDiv(n, 3), n % 3 = 2, toString(n % 3 = 2), if(n % 3 = 1, -1, 1)",
    ),
    Definition::settled(
        "graphite",
        "(Path String, Time DateTime, Value Float64, Version UInt32, d Date) ENGINE = GraphiteMergeTree('graphite_rollup') \
         PARTITION BY toYYYYMM(d) ORDER BY (Path, Time)",
        "concat('host.', toString(h % 5)), toDateTime('2021-01-01 00:00:00') + toUInt32(n), h % 100, 1, toDate('2021-01-01')",
    ),
    Definition {
        database: ODD_DATABASE,
        ..Definition::parts(
            ODD_TABLE,
            "(n UInt64, `a b.é\\`/c` String, `%2F-x` UInt8) ENGINE = MergeTree PARTITION BY n % 2 ORDER BY n",
            "n, toString(h), h",
        )
    },
    Definition::other(TableKind::Files, "log", "(n UInt64, s String) ENGINE = Log", "n, toString(h)"),
    Definition::other(TableKind::Files, "tiny_log", "(n UInt64, s String) ENGINE = TinyLog", "n, toString(h)"),
    Definition::other(TableKind::Files, "stripe_log", "(n UInt64, s String) ENGINE = StripeLog", "n, toString(h)"),
    Definition::other(TableKind::Files, "set_of", "(n UInt64) ENGINE = Set", "n"),
    Definition::other(
        TableKind::Files,
        "join_of",
        "(n UInt64, s String) ENGINE = Join(ANY, LEFT, n)",
        "n, toString(h)",
    ),
    Definition::other(TableKind::Memory, "memory", "(n UInt64, s String) ENGINE = Memory", "n, toString(h)"),
    Definition::other(TableKind::View, "null", "(n UInt64) ENGINE = Null", ""),
    Definition::other(TableKind::View, "merge", "(n UInt64, s String) ENGINE = Merge(data, '^(tiny|stripe)_log$')", ""),
    Definition::other(
        TableKind::View,
        "a_view",
        "CREATE VIEW IF NOT EXISTS {name} AS SELECT n, mat FROM data.scalars WHERE n % 2 = 0",
        "",
    ),
    // The source comes before its views, and gets its rows after them.
    Definition::parts("view_source", "(n UInt64, h UInt64) ENGINE = MergeTree PARTITION BY n % 2 ORDER BY n", "n, h"),
    Definition::parts("view_target", "(n UInt64, twice UInt64) ENGINE = MergeTree ORDER BY n", ""),
    Definition::other(
        TableKind::View,
        "view_to",
        "CREATE MATERIALIZED VIEW IF NOT EXISTS {name} TO data.view_target AS SELECT n, h * 2 AS twice FROM data.view_source",
        "",
    ),
    Definition {
        settle: true,
        ..Definition::other(
            TableKind::View,
            "view_inner",
            "CREATE MATERIALIZED VIEW IF NOT EXISTS {name} ENGINE = SummingMergeTree ORDER BY k AS SELECT n % 5 AS k, sum(h % \
             100) AS total FROM data.view_source GROUP BY k",
            "",
        )
    },
    // Holds back what it is given for a day, so a test sees rows that are in no part.
    Definition::other(
        TableKind::Memory,
        "buffer",
        "(n UInt64, h UInt64) ENGINE = Buffer(data, buffer_target, 1, 86400, 86400, 1000000000, 1000000000, 1000000000, \
         1000000000)",
        "n, h",
    ),
    Definition::parts("buffer_target", "(n UInt64, h UInt64) ENGINE = MergeTree ORDER BY n", "n, h"),
];

pub(super) const OLD: &[Definition] = &[
    Definition::parts(
        "old_syntax",
        "(d Date, n UInt64, s String) ENGINE = MergeTree(d, (n, d), 8192)",
        concat!(day!(), ", n, toString(h)"),
    ),
    Definition::settled(
        "old_replacing",
        "(d Date, n UInt64, v UInt64) ENGINE = ReplacingMergeTree(d, intHash32(n), (n, intHash32(n)), 1024, v)",
        "toDate('2020-01-01') + toUInt16(n % 50), n % 50, n",
    ),
];

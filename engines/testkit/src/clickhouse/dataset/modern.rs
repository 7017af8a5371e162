//! Tables that only a server of today makes.

use super::{Definition, TableKind};

pub(super) const TABLES: &[Definition] = &[
    Definition::parts(
        "new_types",
        "(n UInt64, m Map(String, UInt64), j JSON, tn Tuple(a UInt8, b Array(String)), dt DateTime64(6), d32 Date32, i4 IPv4, \
         i6 IPv6, bo Bool, i128 Int128, u256 UInt256, va Variant(UInt64, String), dy Dynamic, de Decimal(38, 10), nest Nested(k \
         String, v Tuple(UInt8, String)), pt Point) ENGINE = MergeTree ORDER BY n",
        "n, map('a', h, toString(h % 10), n), concat('{\"n\":', toString(n), ',\"in\":{\"s\":\"', toString(h % 9), '\"}}'), \
         tuple(toUInt8(h), [toString(h)]), fromUnixTimestamp64Micro(toInt64(1600000000000000 + n)), toDate32('1950-01-01') + \
         (h % 10000), toIPv4(toUInt32(h)), toIPv6(concat('2001:db8::', lower(hex(toUInt16(h))))), h % 2 = 0, toInt128(h) * \
         toInt128(h), toUInt256(h) * h, if(h % 2 = 0, CAST(n, 'Variant(UInt64, String)'), CAST(toString(n), 'Variant(UInt64, \
         String)')), if(h % 2 = 0, CAST(n, 'Dynamic'), CAST(toString(n), 'Dynamic')), toDecimal128(h % 1000, 10), [toString(n)], \
         [tuple(toUInt8(n), 'x')], tuple(n / 2, n / 3)",
    ),
    Definition::parts(
        "compact_parts",
        "(n UInt64, s String) ENGINE = MergeTree ORDER BY n SETTINGS min_bytes_for_wide_part = 1000000000",
        "n, toString(h)",
    ),
    Definition::parts(
        "wide_parts",
        "(n UInt64, s String, a Array(UInt64)) ENGINE = MergeTree ORDER BY n SETTINGS min_bytes_for_wide_part = 0",
        "n, toString(h), range(h % 4)",
    ),
    Definition::parts(
        "projections",
        "(n UInt64, g String, v UInt64, PROJECTION by_group (SELECT g, sum(v) GROUP BY g), PROJECTION by_value (SELECT * ORDER \
         BY v)) ENGINE = MergeTree PARTITION BY n % 2 ORDER BY n",
        "n, toString(h % 10), h",
    ),
    Definition::parts(
        "indexes",
        "(n UInt64, g String, v UInt64, INDEX small v TYPE minmax GRANULARITY 1, INDEX bloom g TYPE bloom_filter GRANULARITY 1, \
         INDEX few g TYPE set(100) GRANULARITY 2, INDEX words g TYPE text(tokenizer = 'splitByNonAlpha')) ENGINE = MergeTree \
         ORDER BY n SETTINGS min_bytes_for_wide_part = 0",
        "n, concat('word ', toString(h % 10)), h",
    ),
    // Far enough away that nothing expires in a test.
    Definition::parts(
        "expiring",
        "(n UInt64, d DateTime, s String TTL d + INTERVAL 1 YEAR) ENGINE = MergeTree ORDER BY n TTL d + INTERVAL 2 YEAR",
        "n, toDateTime('2100-01-01 00:00:00') + toUInt32(h % 1000), toString(h)",
    ),
    Definition::parts(
        "codecs",
        "(n UInt64 CODEC(Delta, ZSTD(3)), f Float64 CODEC(Gorilla, LZ4HC(4)), d DateTime CODEC(DoubleDelta), t Int64 CODEC(T64, \
         LZ4), s String CODEC(NONE), p Float64 CODEC(FPC)) ENGINE = MergeTree ORDER BY n",
        "n, h / 3, toDateTime('2020-01-01 00:00:00') + toUInt32(n), n, toString(h), h / 7",
    ),
    Definition::settled(
        "coalescing",
        "(k UInt64, a Nullable(String), b Nullable(UInt64)) ENGINE = CoalescingMergeTree ORDER BY k",
        "n % 20, if(h % 2 = 0, NULL, toString(h)), if(h % 2 = 0, h, NULL)",
    ),
    Definition::settled(
        "simple_aggregate",
        "(k UInt64, s SimpleAggregateFunction(sum, UInt64), m SimpleAggregateFunction(max, String)) ENGINE = \
         AggregatingMergeTree ORDER BY k",
        "n % 20, h % 1000, toString(h)",
    ),
    // Changed after it was written: see `CHANGES`.
    Definition::parts(
        "mutated",
        "(n UInt64, s String) ENGINE = MergeTree ORDER BY n SETTINGS enable_block_number_column = 1, \
         enable_block_offset_column = 1",
        "n, toString(h)",
    ),
    Definition::other(
        TableKind::View,
        "dictionary",
        "CREATE DICTIONARY IF NOT EXISTS {name} (n UInt64, s String DEFAULT '') PRIMARY KEY n SOURCE(CLICKHOUSE(QUERY 'SELECT \
         number AS n, toString(number * 2) AS s FROM numbers(10)')) LIFETIME(0) LAYOUT(FLAT())",
        "",
    ),
];

/// A column rewritten, rows deleted by a mask, and a value changed by a patch part.
pub(super) const CHANGES: &[&str] = &[
    "ALTER TABLE data.mutated UPDATE s = 'rewritten' WHERE n % 5 = 0 SETTINGS mutations_sync = 2",
    "DELETE FROM data.mutated WHERE n % 7 = 0",
    "UPDATE data.mutated SET s = 'patched' WHERE n % 11 = 1",
];

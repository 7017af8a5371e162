//! How values of other crates stand in CBOR. Used by `#[cbor(with = …)]`; part of the repository format.

/// For fields that stand there only when they are true.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the encoder passes a reference")]
pub(crate) const fn is_false(value: &bool) -> bool {
    !*value
}

/// A moment as whole microseconds since 1970-01-01 UTC (signed 64 bit). Finer parts are cut off.
pub mod timestamp {
    use jiff::Timestamp;
    use minicbor::decode::Error as DecodeError;
    use minicbor::encode::{Error as EncodeError, Write};
    use minicbor::{Decoder, Encoder};

    /// Writes the moment.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn encode<C, W: Write>(value: &Timestamp, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        e.i64(value.as_microsecond())?.ok()
    }

    /// Reads a moment.
    ///
    /// # Errors
    /// When the number lies outside the years that a timestamp can have.
    pub fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Timestamp, DecodeError> {
        Timestamp::from_microsecond(d.i64()?).map_err(DecodeError::custom)
    }
}

/// A moment or none, as null.
pub mod optional_timestamp {
    use jiff::Timestamp;
    use minicbor::decode::Error as DecodeError;
    use minicbor::encode::{Error as EncodeError, Write};
    use minicbor::{Decoder, Encoder};

    /// Writes the moment, or null.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn encode<C, W: Write>(
        value: &Option<Timestamp>,
        e: &mut Encoder<W>,
        cx: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        match value {
            Some(value) => crate::cbor::timestamp::encode(value, e, cx),
            None => e.null()?.ok(),
        }
    }

    /// Reads a moment, or null.
    ///
    /// # Errors
    /// As [`timestamp::decode`](super::timestamp::decode).
    pub fn decode<C>(d: &mut Decoder<'_>, cx: &mut C) -> Result<Option<Timestamp>, DecodeError> {
        if d.datatype()? == minicbor::data::Type::Null {
            d.null()?;
            return Ok(None);
        }
        crate::cbor::timestamp::decode(d, cx).map(Some)
    }
}

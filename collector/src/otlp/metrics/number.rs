//! A data point's number.

use opentelemetry_proto::tonic::metrics::v1::{NumberDataPoint, number_data_point};

/// Bit 0 of a data point's flags: no value was recorded, the series has ended here.
const NO_RECORDED_VALUE: u32 = 1;

pub(super) fn recorded(flags: u32) -> bool {
    flags & NO_RECORDED_VALUE == 0
}

pub(super) fn number(p: &NumberDataPoint) -> Option<f64> {
    match p.value? {
        number_data_point::Value::AsDouble(v) => Some(v),
        number_data_point::Value::AsInt(v) => Some(v as f64),
    }
}

//! ServiceAccount: who a pod is.

use serde_json::Value;
use signal::Timestamp;

use super::{AGE, BASE, Kind, NAME, column};
use crate::{object, table};

pub(crate) static KIND: Kind = Kind {
    resource: "serviceaccounts",
    singular: "serviceaccount",
    kind: "ServiceAccount",
    short: &["sa"],
    columns: &[NAME, column("Secrets"), AGE],
    row,
    ..BASE
};

fn row(o: &Value, now: Timestamp) -> Vec<Value> {
    let n = object::list(o, "secrets").len();
    vec![object::name(o).into(), n.to_string().into(), table::age(o, now)]
}

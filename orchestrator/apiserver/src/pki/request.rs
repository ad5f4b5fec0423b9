//! Signing requests of others: PKCS #10 in, a certificate of our authority out.
//!
//! Subject and key are taken as they lie in the request, so that a subject with several organizations keeps them
//! all; what a certificate may be used for comes from the API object, never from the request (RFC 5280, RFC 2986).

use rand::RngCore;
use rcgen::{KeyPair, SigningKey};
use rustls_pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, ParsedCriAttribute, ParsedExtension, X509Certificate};

use super::{Pki, certificate};
use crate::error::Error;

const OID_SAN: &[u8] = &[0x55, 0x1d, 0x11];
const OID_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const OID_EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
const OID_BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const OID_AUTHORITY_KEY: &[u8] = &[0x55, 0x1d, 0x23];
/// ecdsa-with-SHA256
const OID_SIGNATURE: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
/// id-kp
const KEY_PURPOSE: [u8; 7] = [0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03];
/// Clocks differ.
const BACKDATE_S: i64 = 300;

/// Usages of certificates.k8s.io that are bits of KeyUsage, by their number.
const KEY_USAGES: [(&str, u8); 10] = [
    ("signing", 0),
    ("digital signature", 0),
    ("content commitment", 1),
    ("key encipherment", 2),
    ("data encipherment", 3),
    ("key agreement", 4),
    ("cert sign", 5),
    ("crl sign", 6),
    ("encipher only", 7),
    ("decipher only", 8),
];
/// Usages that are key purposes, by the last part of their number.
const PURPOSES: [(&str, u8); 10] = [
    ("server auth", 1),
    ("client auth", 2),
    ("code signing", 3),
    ("email protection", 4),
    ("s/mime", 4),
    ("ipsec end system", 5),
    ("ipsec tunnel", 6),
    ("ipsec user", 7),
    ("timestamping", 8),
    ("ocsp signing", 9),
];

/// Every usage a request may name.
pub(crate) fn is_usage(usage: &str) -> bool {
    matches!(usage, "any" | "microsoft sgc" | "netscape sgc")
        || KEY_USAGES.iter().chain(&PURPOSES).any(|(n, _)| *n == usage)
}

/// What a request says of its maker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) common_name: String,
    pub(crate) organizations: Vec<String>,
    pub(crate) dns_names: usize,
    pub(crate) addresses: usize,
    pub(crate) emails: usize,
    pub(crate) uris: usize,
}

/// Reads a request and checks that its maker has the key.
pub(crate) fn read(pem: &[u8]) -> Result<Asked, String> {
    let der = der(pem)?;
    let (_, csr) =
        X509CertificationRequest::from_der(&der).map_err(|e| format!("unable to parse the request: {e}"))?;
    csr.verify_signature().map_err(|_| "the signature of the request is invalid".to_owned())?;
    let subject = &csr.certification_request_info.subject;
    let mut asked = Asked {
        common_name: subject
            .iter_common_name()
            .next()
            .and_then(|c| c.as_str().ok())
            .unwrap_or_default()
            .to_owned(),
        organizations: subject
            .iter_organization()
            .filter_map(|o| o.as_str().ok().map(str::to_owned))
            .collect(),
        ..Asked::default()
    };
    for extension in csr.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(san) = extension else { continue };
        for name in &san.general_names {
            match name {
                GeneralName::DNSName(_) => asked.dns_names += 1,
                GeneralName::IPAddress(_) => asked.addresses += 1,
                GeneralName::RFC822Name(_) => asked.emails += 1,
                GeneralName::URI(_) => asked.uris += 1,
                _ => {}
            }
        }
    }
    Ok(asked)
}

fn der(pem: &[u8]) -> Result<Vec<u8>, String> {
    let bad = "PEM block type must be CERTIFICATE REQUEST";
    rustls_pki_types::CertificateSigningRequestDer::from_pem_slice(pem)
        .map(|d| d.as_ref().to_vec())
        .map_err(|_| bad.to_owned())
}

impl Pki {
    /// Signs a request for some usages, from now for `seconds`, never beyond our own end. PEM.
    pub(crate) fn sign_request(
        &self,
        pem: &[u8],
        usages: &[String],
        now_s: i64,
        seconds: i64,
    ) -> Result<String, Error> {
        let bad = |e: String| Error::Certificate(e);
        read(pem).map_err(bad)?;
        let der = der(pem).map_err(bad)?;
        let (_, csr) = X509CertificationRequest::from_der(&der).map_err(|e| bad(e.to_string()))?;
        let info = &csr.certification_request_info;
        let ca = self.ca_der()?;
        let (_, ca) = X509Certificate::from_der(&ca).map_err(|e| bad(e.to_string()))?;
        let until = (now_s + seconds).min(ca.validity().not_after.timestamp());
        let mut serial = [0u8; 16];
        rand::rng().fill_bytes(&mut serial);
        // Positive, and never shorter than it looks.
        serial[0] = serial[0] & 0x7f | 0x40;
        let algorithm = sequence(&[&object_id(OID_SIGNATURE)]);
        let validity = sequence(&[&time(now_s - BACKDATE_S)?, &time(until)?]);
        let extensions = tagged(
            0xa3,
            &sequence(&extensions(&csr, &ca, usages).iter().map(Vec::as_slice).collect::<Vec<_>>()),
        );
        let tbs = sequence(&[
            &tagged(0xa0, &tagged(0x02, &[2])),
            &tagged(0x02, &serial),
            &algorithm,
            ca.subject().as_raw(),
            &validity,
            info.subject.as_raw(),
            info.subject_pki.raw,
            &extensions,
        ]);
        let key = KeyPair::from_pem(&self.ca.key_pem).map_err(certificate)?;
        let signature = key.sign(&tbs).map_err(certificate)?;
        let signed = sequence(&[&tbs, &algorithm, &bits(&signature, 0)]);
        Ok(pem_of(&signed))
    }
}

fn extensions(
    csr: &X509CertificationRequest<'_>,
    ca: &X509Certificate<'_>,
    usages: &[String],
) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let mut usage = 0u16;
    for (_, bit) in KEY_USAGES.iter().filter(|(n, _)| usages.iter().any(|u| u == n)) {
        usage |= 0x8000 >> bit;
    }
    if usage != 0 {
        let bytes = usage.to_be_bytes();
        let value = if bytes[1] == 0 {
            bits(&bytes[..1], u8::try_from(bytes[0].trailing_zeros()).unwrap_or(0))
        } else {
            bits(&bytes, u8::try_from(bytes[1].trailing_zeros()).unwrap_or(0))
        };
        out.push(extension(OID_KEY_USAGE, true, &value));
    }
    let mut purposes: Vec<Vec<u8>> = Vec::new();
    for (_, n) in PURPOSES.iter().filter(|(n, _)| usages.iter().any(|u| u == n)) {
        let id = object_id(&[&KEY_PURPOSE[..], &[*n]].concat());
        if !purposes.contains(&id) {
            purposes.push(id);
        }
    }
    if !purposes.is_empty() {
        let all: Vec<&[u8]> = purposes.iter().map(Vec::as_slice).collect();
        out.push(extension(OID_EXTENDED_KEY_USAGE, false, &sequence(&all)));
    }
    // Never an authority, whatever the request says.
    out.push(extension(OID_BASIC_CONSTRAINTS, true, &sequence(&[])));
    let key_id = ca.iter_extensions().find_map(|e| match e.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    });
    let key_id = key_id.unwrap_or_else(|| Sha256::digest(ca.public_key().raw)[..20].to_vec());
    out.push(extension(OID_AUTHORITY_KEY, false, &sequence(&[&tagged(0x80, &key_id)])));
    for attribute in csr.certification_request_info.iter_attributes() {
        let ParsedCriAttribute::ExtensionRequest(asked) = attribute.parsed_attribute() else { continue };
        for e in asked.extensions.iter().filter(|e| e.oid.as_bytes() == OID_SAN) {
            out.push(extension(OID_SAN, e.critical, e.value));
        }
    }
    out
}

fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        n @ 0..=127 => out.push(u8::try_from(n).unwrap_or(0)),
        n => {
            let bytes = n.to_be_bytes();
            let significant: Vec<u8> = bytes.into_iter().skip_while(|b| *b == 0).collect();
            out.push(0x80 | u8::try_from(significant.len()).unwrap_or(0));
            out.extend(significant);
        }
    }
    out.extend_from_slice(content);
    out
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tagged(0x30, &parts.concat())
}

fn object_id(bytes: &[u8]) -> Vec<u8> {
    tagged(0x06, bytes)
}

fn bits(bytes: &[u8], unused: u8) -> Vec<u8> {
    tagged(0x03, &[&[unused], bytes].concat())
}

fn extension(id: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let value = tagged(0x04, value);
    if critical {
        sequence(&[&object_id(id), &tagged(0x01, &[0xff]), &value])
    } else {
        sequence(&[&object_id(id), &value])
    }
}

/// UTCTime until 2049, GeneralizedTime after (RFC 5280, 4.1.2.5).
fn time(seconds: i64) -> Result<Vec<u8>, Error> {
    let t = jiff::Timestamp::from_second(seconds).map_err(|e| Error::Certificate(e.to_string()))?;
    let t = t.to_zoned(jiff::tz::TimeZone::UTC);
    Ok(if t.year() < 2050 {
        tagged(0x17, t.strftime("%y%m%d%H%M%SZ").to_string().as_bytes())
    } else {
        tagged(0x18, t.strftime("%Y%m%d%H%M%SZ").to_string().as_bytes())
    })
}

fn pem_of(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = more;
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, CustomExtension, DnType, SanType};
    use std::net::IpAddr;

    fn pki(dir: &std::path::Path) -> Pki {
        Pki::open(crate::pki::PkiConfig {
            dir: dir.to_owned(),
            addresses: Vec::new(),
            service_ip: IpAddr::from([10, 43, 0, 1]),
            cluster_domain: "cluster.local".to_owned(),
            hostname: "test".to_owned(),
            now: signal::time::now(),
        })
        .expect("certificates")
    }

    fn request(change: impl FnOnce(&mut CertificateParams)) -> String {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, "system:node:a");
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        // The same type by its number: the only way to say two with this library.
        params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 10]), "more");
        change(&mut params);
        params.serialize_request(&key).expect("a request").pem().expect("PEM")
    }

    #[test]
    fn what_is_signed_is_ours_and_keeps_its_subject() {
        let dir = tempfile::tempdir().expect("a directory");
        let pki = pki(dir.path());
        let pem =
            request(|p| p.subject_alt_names.push(SanType::DnsName("a.example".try_into().expect("a name"))));
        let asked = read(pem.as_bytes()).expect("a request");
        assert_eq!((asked.common_name.as_str(), asked.dns_names), ("system:node:a", 1));
        assert_eq!(asked.organizations, ["system:nodes", "more"]);
        let now = signal::time::now().millis() / 1000;
        let usages = ["digital signature", "key encipherment", "client auth"].map(str::to_owned);
        let signed = pki.sign_request(pem.as_bytes(), &usages, now, 3600).expect("signed");
        let der = rustls_pki_types::CertificateDer::from_pem_slice(signed.as_bytes()).expect("PEM");
        let (rest, cert) = X509Certificate::from_der(&der).expect("a certificate");
        assert!(rest.is_empty());
        let ca = pki.ca_der().expect("a CA");
        let (_, ca) = X509Certificate::from_der(&ca).expect("a CA");
        cert.verify_signature(Some(ca.public_key())).expect("signed by us");
        assert_eq!(cert.validity().not_after.timestamp(), now + 3600);
        let organizations: Vec<&str> =
            cert.subject().iter_organization().filter_map(|o| o.as_str().ok()).collect();
        assert_eq!(organizations, ["system:nodes", "more"]);
        let usage = cert.key_usage().expect("well-formed").expect("there").value;
        assert!(usage.digital_signature() && usage.key_encipherment() && !usage.key_cert_sign());
        let purposes = cert.extended_key_usage().expect("well-formed").expect("there").value;
        assert!(purposes.client_auth && !purposes.server_auth);
        assert!(!cert.is_ca());
        assert_eq!(
            cert.subject_alternative_name().expect("well-formed").expect("there").value.general_names.len(),
            1
        );
        assert_eq!(
            crate::authn::from_certificate(&der).expect("a user").user.groups,
            ["system:nodes", "more", "system:authenticated"]
        );
    }

    #[test]
    fn the_serving_certificate_is_made_again_before_it_ends() {
        let dir = tempfile::tempdir().expect("a directory");
        let pki = pki(dir.path());
        let later =
            |days: i64| signal::Timestamp::from_secs(signal::time::now().millis() / 1000 + days * 86_400);
        assert_eq!(
            pki.current_apiserver(later(300)).expect("a certificate").cert_pem,
            pki.apiserver.cert_pem
        );
        let renewed = pki.current_apiserver(later(340)).expect("a certificate");
        assert_ne!(renewed.cert_pem, pki.apiserver.cert_pem);
        assert_eq!(pki.current_apiserver(later(341)).expect("a certificate").cert_pem, renewed.cert_pem);
    }

    #[test]
    fn a_request_cannot_ask_to_be_an_authority() {
        let dir = tempfile::tempdir().expect("a directory");
        let pki = pki(dir.path());
        let pem = request(|p| {
            // BasicConstraints: CA
            p.custom_extensions
                .push(CustomExtension::from_oid_content(&[2, 5, 29, 19], vec![0x30, 3, 1, 1, 0xff]));
        });
        let signed = pki
            .sign_request(pem.as_bytes(), &["client auth".to_owned()], 1_000_000_000, 600)
            .expect("signed");
        let der = rustls_pki_types::CertificateDer::from_pem_slice(signed.as_bytes()).expect("PEM");
        assert!(!X509Certificate::from_der(&der).expect("a certificate").1.is_ca());
    }

    #[test]
    fn what_is_no_request_is_refused() {
        assert_eq!(read(b"nothing").expect_err("no PEM"), "PEM block type must be CERTIFICATE REQUEST");
        let pem = request(|_| {});
        let der = der(pem.as_bytes()).expect("DER");
        let mut forged = der.clone();
        let at = forged.windows(4).position(|w| w == b"more").expect("the organization");
        forged[at] ^= 1;
        let text = pem_of(&forged).replace("CERTIFICATE", "CERTIFICATE REQUEST");
        assert_eq!(read(text.as_bytes()).expect_err("forged"), "the signature of the request is invalid");
    }
}

//! The cluster's own certificate authority and what it signs, kept under one directory.
//!
//! Files: `ca.crt`, `ca.key`, `front-proxy-ca.crt` and `.key` (it vouches for what we say of callers to the servers of
//! aggregated APIs), and for each name `NAME.crt`, `NAME.key`; `service-account.key` signs tokens.
//! The directory is 0700, each file 0600. What exists is loaded; what is missing, expired or lacks an address
//! is made again.

pub(crate) mod request;

use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use signal::Timestamp;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::error::Error;

const CA_DAYS: i64 = 3650;
const LEAF_DAYS: i64 = 365;
/// A certificate that ends sooner than this is made again when it is loaded.
const RENEW_DAYS: i64 = 30;
const DAY_S: i64 = 86_400;
/// Whom the servers of aggregated APIs believe.
pub(crate) const FRONT_PROXY: &str = "front-proxy-client";
const FRONT_PROXY_CA: &str = "front-proxy-ca";

/// What the certificates must say.
#[derive(Clone, Debug)]
pub struct PkiConfig {
    pub dir: PathBuf,
    /// Addresses under which the API server is reached, beside loopback.
    pub addresses: Vec<IpAddr>,
    /// The address of the `kubernetes` service: the first of the service range.
    pub service_ip: IpAddr,
    pub cluster_domain: String,
    pub hostname: String,
    pub now: Timestamp,
}

/// A certificate with its key, as PEM.
#[derive(Clone)]
pub struct Identity {
    pub cert_pem: String,
    pub key_pem: String,
}

impl Identity {
    /// For rustls.
    pub fn der(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
        let bad = |e: rustls_pki_types::pem::Error| Error::Certificate(e.to_string());
        let certs = CertificateDer::pem_slice_iter(self.cert_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(bad)?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).map_err(bad)?;
        Ok((certs, key))
    }
}

/// What a certificate is for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    pub server: bool,
    pub client: bool,
}

/// The authority, and the identities the control plane needs from the start.
pub struct Pki {
    config: PkiConfig,
    ca: Identity,
    front_proxy_ca: Identity,
    /// Shown to the servers of aggregated APIs.
    pub(crate) front_proxy: Identity,
    /// Serves the API.
    pub apiserver: Identity,
    /// The administrator's client certificate (`system:masters`).
    pub admin: Identity,
    /// With which the API server asks kubelets.
    pub kubelet_client: Identity,
    /// Serves this machine's kubelet API.
    pub kubelet_server: Identity,
    /// Signs service account tokens (P-256, PKCS#8).
    pub service_account_key_pem: String,
    service_account_public_pem: String,
}

impl Pki {
    pub fn open(config: PkiConfig) -> Result<Self, Error> {
        let io = |e: std::io::Error| Error::Io { path: config.dir.display().to_string(), source: e };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.dir).map_err(io)?;
        std::fs::set_permissions(&config.dir, std::fs::Permissions::from_mode(0o700)).map_err(io)?;
        let authority = |file: &str, name: &str| match load(&config.dir, file)? {
            Some(ca) => Ok::<_, Error>(ca),
            None => {
                let ca = make_ca(&config, name)?;
                save(&config.dir, file, &ca)?;
                Ok(ca)
            }
        };
        let (ca, front_proxy_ca) =
            (authority("ca", "binnacle-ca")?, authority(FRONT_PROXY_CA, "binnacle-front-proxy-ca")?);
        let sa_path = config.dir.join("service-account.key");
        let service_account_key_pem = match read(&sa_path)? {
            Some(pem) => pem,
            None => {
                let pem = KeyPair::generate().map_err(certificate)?.serialize_pem();
                write(&sa_path, &pem)?;
                pem
            }
        };
        let service_account_public_pem =
            KeyPair::from_pem(&service_account_key_pem).map_err(certificate)?.public_key_pem();
        let empty = || Identity { cert_pem: String::new(), key_pem: String::new() };
        let mut pki = Pki {
            ca,
            front_proxy_ca,
            front_proxy: empty(),
            apiserver: empty(),
            admin: empty(),
            kubelet_client: empty(),
            kubelet_server: empty(),
            service_account_key_pem,
            service_account_public_pem,
            config,
        };
        pki.apiserver = pki.ensure("apiserver", &pki.apiserver_request())?;
        pki.admin = pki.ensure(
            "admin",
            &Request {
                common_name: "kubernetes-admin".to_owned(),
                organizations: vec!["system:masters".to_owned()],
                client: true,
                ..Request::default()
            },
        )?;
        pki.kubelet_client = pki.ensure(
            "apiserver-kubelet-client",
            &Request {
                common_name: "kube-apiserver-kubelet-client".to_owned(),
                organizations: vec!["system:masters".to_owned()],
                client: true,
                ..Request::default()
            },
        )?;
        pki.kubelet_server = pki.ensure("kubelet", &pki.kubelet_request())?;
        let front_proxy = Request { common_name: FRONT_PROXY.to_owned(), client: true, ..Request::default() };
        pki.front_proxy = pki.ensure_from(&pki.front_proxy_ca, FRONT_PROXY, &front_proxy, pki.config.now)?;
        Ok(pki)
    }

    /// The certificate that serves the API, made again if its end is near at `now`; for servers that run for long.
    pub(crate) fn current_apiserver(&self, now: Timestamp) -> Result<Identity, Error> {
        self.ensure_at("apiserver", &self.apiserver_request(), now)
    }

    fn apiserver_request(&self) -> Request {
        let c = &self.config;
        let domain = &c.cluster_domain;
        let mut dns_names: Vec<String> =
            ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
                .map(str::to_owned)
                .into();
        dns_names.push(format!("kubernetes.default.svc.{domain}"));
        dns_names.push(c.hostname.clone());
        let mut addresses = self.own_addresses();
        addresses.push(c.service_ip);
        Request {
            common_name: "kube-apiserver".to_owned(),
            dns_names,
            addresses,
            server: true,
            ..Request::default()
        }
    }

    fn kubelet_request(&self) -> Request {
        Request {
            common_name: format!("system:node:{}", self.config.hostname),
            organizations: vec!["system:nodes".to_owned()],
            dns_names: vec![self.config.hostname.clone(), "localhost".to_owned()],
            addresses: self.own_addresses(),
            server: true,
            client: true,
        }
    }

    fn own_addresses(&self) -> Vec<IpAddr> {
        let mut all = vec![IpAddr::from([127, 0, 0, 1])];
        all.extend(self.config.addresses.iter().filter(|a| !a.is_unspecified() && !a.is_loopback()));
        all
    }

    /// The authority's certificate, for kubeconfigs and `kube-root-ca.crt`.
    pub fn ca_pem(&self) -> &str {
        &self.ca.cert_pem
    }

    /// The certificate that vouches for [`Pki::front_proxy`].
    pub fn front_proxy_ca_pem(&self) -> &str {
        &self.front_proxy_ca.cert_pem
    }

    pub fn ca_der(&self) -> Result<CertificateDer<'static>, Error> {
        CertificateDer::from_pem_slice(self.ca.cert_pem.as_bytes())
            .map_err(|e| Error::Certificate(e.to_string()))
    }

    pub(crate) fn service_account_public_pem(&self) -> &str {
        &self.service_account_public_pem
    }

    /// A new certificate that is not kept.
    pub fn issue(&self, request: &Request) -> Result<Identity, Error> {
        issue(&self.ca, request, self.config.now)
    }

    /// The kept certificate of this name, made again if it no longer serves.
    pub fn ensure(&self, name: &str, request: &Request) -> Result<Identity, Error> {
        self.ensure_at(name, request, self.config.now)
    }

    fn ensure_at(&self, name: &str, request: &Request, now: Timestamp) -> Result<Identity, Error> {
        self.ensure_from(&self.ca, name, request, now)
    }

    fn ensure_from(
        &self,
        ca: &Identity,
        name: &str,
        request: &Request,
        now: Timestamp,
    ) -> Result<Identity, Error> {
        if let Some(found) = load(&self.config.dir, name)?
            && serves(ca, &found, request, now)
        {
            return Ok(found);
        }
        let made = issue(ca, request, now)?;
        save(&self.config.dir, name, &made)?;
        Ok(made)
    }
}

fn issue(ca: &Identity, request: &Request, now: Timestamp) -> Result<Identity, Error> {
    let key = KeyPair::generate().map_err(certificate)?;
    let ca_key = KeyPair::from_pem(&ca.key_pem).map_err(certificate)?;
    let issuer = Issuer::from_ca_cert_pem(&ca.cert_pem, ca_key).map_err(certificate)?;
    let mut sans = request.dns_names.clone();
    sans.extend(request.addresses.iter().map(ToString::to_string));
    let mut params = CertificateParams::new(sans).map_err(certificate)?;
    params.distinguished_name.push(DnType::CommonName, request.common_name.as_str());
    for o in &request.organizations {
        params.distinguished_name.push(DnType::OrganizationName, o.as_str());
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    if request.server {
        params.insert_extended_key_usage(ExtendedKeyUsagePurpose::ServerAuth);
    }
    if request.client {
        params.insert_extended_key_usage(ExtendedKeyUsagePurpose::ClientAuth);
    }
    params.use_authority_key_identifier_extension = true;
    lifetime(&mut params, now, LEAF_DAYS);
    let cert = params.signed_by(&key, &issuer).map_err(certificate)?;
    Ok(Identity { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
}

/// Whether a certificate is ours, lasts, and covers what is asked.
fn serves(ca: &Identity, identity: &Identity, request: &Request, now: Timestamp) -> bool {
    let Ok((certs, _)) = identity.der() else { return false };
    let Some(der) = certs.first() else { return false };
    let Ok((_, cert)) = X509Certificate::from_der(der) else { return false };
    let until = cert.validity().not_after.timestamp();
    if until - now.millis() / 1000 < RENEW_DAYS * DAY_S {
        return false;
    }
    let Ok(ca) = CertificateDer::from_pem_slice(ca.cert_pem.as_bytes()) else { return false };
    let Ok((_, ca)) = X509Certificate::from_der(&ca) else { return false };
    if cert.verify_signature(Some(ca.public_key())).is_err() {
        return false;
    }
    let sans = cert.subject_alternative_name().ok().flatten();
    let sans = sans.map(|s| s.value.general_names.clone()).unwrap_or_default();
    let dns = |n: &String| sans.iter().any(|s| matches!(s, GeneralName::DNSName(d) if d == n));
    let ip = |a: &IpAddr| {
        let bytes = match a {
            IpAddr::V4(a) => a.octets().to_vec(),
            IpAddr::V6(a) => a.octets().to_vec(),
        };
        sans.iter().any(|s| matches!(s, GeneralName::IPAddress(b) if *b == bytes))
    };
    request.dns_names.iter().all(dns) && request.addresses.iter().all(ip)
}

fn certificate(e: rcgen::Error) -> Error {
    Error::Certificate(e.to_string())
}

fn make_ca(config: &PkiConfig, name: &str) -> Result<Identity, Error> {
    let key = KeyPair::generate().map_err(certificate)?;
    let mut params = CertificateParams::new(Vec::new()).map_err(certificate)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    lifetime(&mut params, config.now, CA_DAYS);
    let cert = params.self_signed(&key).map_err(certificate)?;
    Ok(Identity { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
}

/// From an hour ago, for clocks that differ.
fn lifetime(params: &mut CertificateParams, now: Timestamp, days: i64) {
    let at = |secs: i64| {
        let t = Timestamp::from_secs(now.millis() / 1000 + secs).to_system_time();
        t.into()
    };
    params.not_before = at(-3600);
    params.not_after = at(days * DAY_S);
}

fn read(path: &Path) -> Result<Option<String>, Error> {
    match std::fs::read_to_string(path) {
        Ok(s) => Ok(Some(s)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Io { path: path.display().to_string(), source }),
    }
}

/// Whole or not at all: beside it first, then renamed.
fn write(path: &Path, text: &str) -> Result<(), Error> {
    let io = |source| Error::Io { path: path.display().to_string(), source };
    let beside = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    let mut f = options.write(true).create(true).truncate(true).mode(0o600).open(&beside).map_err(io)?;
    std::io::Write::write_all(&mut f, text.as_bytes()).map_err(io)?;
    f.sync_all().map_err(io)?;
    std::fs::rename(&beside, path).map_err(io)
}

fn load(dir: &Path, name: &str) -> Result<Option<Identity>, Error> {
    let cert = read(&dir.join(format!("{name}.crt")))?;
    let key = read(&dir.join(format!("{name}.key")))?;
    Ok(cert.zip(key).map(|(cert_pem, key_pem)| Identity { cert_pem, key_pem }))
}

fn save(dir: &Path, name: &str, identity: &Identity) -> Result<(), Error> {
    write(&dir.join(format!("{name}.key")), &identity.key_pem)?;
    write(&dir.join(format!("{name}.crt")), &identity.cert_pem)
}

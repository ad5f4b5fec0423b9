//! Reads image archives: an OCI layout or what `docker save` writes, as tar or gzipped tar.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use bytes::Bytes;
use containerd_client::types::Descriptor;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::content;
use crate::Error;
use crate::containerd::{Containerd, Lease};

/// Documents (index, manifests) are read whole up to this.
const MAX_DOCUMENT: u64 = 8 << 20;
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// One image of the archive, now in the content store.
pub(crate) struct Found {
    pub(crate) names: Vec<String>,
    pub(crate) manifest: Descriptor,
}

/// A tar file with an index of its members.
struct Archive {
    file: File,
    members: HashMap<String, (u64, u64)>,
}

impl Archive {
    fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut magic = [0; 2];
        let n = file.read(&mut magic)?;
        file.rewind()?;
        if n == 2 && magic == [0x1f, 0x8b] {
            // Members are read in any order: inflate into an unnamed file first.
            let dir = path.parent().unwrap_or(Path::new("/"));
            let inflated = dir.join(format!(".inflate-{}", uuid::Uuid::new_v4()));
            let mut out = File::options().create_new(true).read(true).write(true).open(&inflated)?;
            std::fs::remove_file(&inflated)?;
            io::copy(&mut flate2::read::MultiGzDecoder::new(BufReader::new(file)), &mut out)?;
            out.rewind()?;
            file = out;
        }
        let members = index(&mut BufReader::new(&file))?;
        Ok(Archive { file, members })
    }

    fn place(&self, name: &str) -> io::Result<(u64, u64)> {
        self.members.get(name.trim_start_matches("./")).copied().ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("{name} is missing in the archive"))
        })
    }

    fn document(&self, name: &str) -> io::Result<Bytes> {
        let (offset, len) = self.place(name)?;
        if len > MAX_DOCUMENT {
            return Err(io::Error::other(format!("{name} is larger than {MAX_DOCUMENT} bytes")));
        }
        let mut buf = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        std::os::unix::fs::FileExt::read_exact_at(&self.file, &mut buf, offset)?;
        Ok(buf.into())
    }

    fn json<T: serde::de::DeserializeOwned>(&self, name: &str) -> io::Result<T> {
        serde_json::from_slice(&self.document(name)?).map_err(io::Error::other)
    }

    /// A member's bytes as a stream, 1 MiB at a time.
    fn stream(
        &self,
        name: &str,
    ) -> io::Result<(u64, impl futures::Stream<Item = io::Result<Bytes>> + use<>)> {
        let (offset, len) = self.place(name)?;
        let file = self.file.try_clone()?;
        let stream = futures::stream::unfold(0, move |at| {
            let part = file.try_clone().and_then(|file| {
                let n = (len - at).min(1 << 20);
                let mut buf = vec![0; n as usize];
                std::os::unix::fs::FileExt::read_exact_at(&file, &mut buf, offset + at)?;
                Ok(Bytes::from(buf))
            });
            async move {
                match part {
                    Ok(b) if b.is_empty() => None,
                    Ok(b) => {
                        let next = at + b.len() as u64;
                        Some((Ok(b), next))
                    }
                    Err(e) => Some((Err(e), len)),
                }
            }
        });
        Ok((len, stream))
    }

    fn digest(&self, name: &str) -> io::Result<(String, u64)> {
        let (offset, len) = self.place(name)?;
        let mut hash = Sha256::new();
        let mut buf = vec![0; 1 << 20];
        let mut at = 0;
        while at < len {
            let n = usize::try_from((len - at).min(buf.len() as u64)).map_err(io::Error::other)?;
            std::os::unix::fs::FileExt::read_exact_at(&self.file, &mut buf[..n], offset + at)?;
            hash.update(&buf[..n]);
            at += n as u64;
        }
        Ok((format!("sha256:{}", hex::encode(hash.finalize())), len))
    }
}

/// Places of the regular files of a tar stream (POSIX ustar and pax, GNU long names).
fn index(tar: &mut (impl Read + Seek)) -> io::Result<HashMap<String, (u64, u64)>> {
    let mut members = HashMap::new();
    let mut header = [0u8; 512];
    let mut offset = 0u64;
    let mut long_name: Option<String> = None;
    loop {
        tar.seek(SeekFrom::Start(offset))?;
        match tar.read_exact(&mut header) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(members),
            Err(e) => return Err(e),
        }
        if header.iter().all(|b| *b == 0) {
            return Ok(members);
        }
        let size = number(&header[124..136])?;
        let data = offset + 512;
        let text = |tar: &mut dyn Read| -> io::Result<Vec<u8>> {
            let mut v = Vec::new();
            tar.take(size.min(MAX_DOCUMENT)).read_to_end(&mut v)?;
            Ok(v)
        };
        match header[156] {
            b'L' => long_name = Some(field(&text(tar)?)),
            b'x' => long_name = pax_path(&text(tar)?).or(long_name),
            b'0' | 0 => {
                let name = long_name.take().unwrap_or_else(|| {
                    let (name, prefix) = (field(&header[..100]), field(&header[345..500]));
                    let ustar = &header[257..262] == b"ustar" && !prefix.is_empty();
                    if ustar { format!("{prefix}/{name}") } else { name }
                });
                members.insert(name.trim_start_matches("./").to_owned(), (data, size));
            }
            b'g' => {}
            _ => long_name = None,
        }
        offset = data + size.div_ceil(512) * 512;
    }
}

fn field(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn number(bytes: &[u8]) -> io::Result<u64> {
    if bytes[0] & 0x80 != 0 {
        return Ok(bytes[1..].iter().fold(0, |n, b| (n << 8) | u64::from(*b)));
    }
    let text = field(bytes);
    let text = text.trim();
    u64::from_str_radix(if text.is_empty() { "0" } else { text }, 8).map_err(io::Error::other)
}

/// The `path` record of a pax header: lines of `<length> <key>=<value>`.
fn pax_path(data: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(data);
    text.lines()
        .filter_map(|l| l.split_once(' '))
        .find_map(|(_, kv)| kv.strip_prefix("path=").map(str::to_owned))
}

/// Brings all images of the archive into the content store.
pub(crate) async fn load(c: &Containerd, lease: &Lease, path: &Path) -> Result<Vec<Found>, Error> {
    let what = || Error::io(format!("read {path:?}"));
    let archive = Archive::open(path).map_err(what())?;
    if archive.members.contains_key("index.json") {
        load_layout(c, lease, &archive).await
    } else if archive.members.contains_key("manifest.json") {
        load_docker(c, lease, &archive).await
    } else {
        let why = "neither an OCI layout (index.json) nor a Docker archive (manifest.json)".to_owned();
        Err(Error::Image { image: path.display().to_string(), why })
    }
}

fn blob(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

/// Copies a blob of the layout unless containerd has it.
async fn copy(c: &Containerd, lease: &Lease, a: &Archive, member: &str, digest: &str) -> Result<(), Error> {
    if content::exists(c, digest).await? {
        return Ok(());
    }
    let (len, stream) = a.stream(member).map_err(Error::io("read the archive"))?;
    content::write(c, lease, digest, i64::try_from(len).unwrap_or(i64::MAX), stream).await
}

async fn load_layout(c: &Containerd, lease: &Lease, a: &Archive) -> Result<Vec<Found>, Error> {
    let io = || Error::io("read the archive");
    let index: Value = a.json("index.json").map_err(io())?;
    let mut queue: Vec<Value> = index["manifests"].as_array().cloned().unwrap_or_default();
    let mut out = Vec::new();
    while let Some(entry) = queue.pop() {
        let digest = entry["digest"].as_str().unwrap_or_default().to_owned();
        let document = a.document(&blob(&digest)).map_err(io())?;
        let manifest: Value = serde_json::from_slice(&document).map_err(|e| io()(io::Error::other(e)))?;
        if let Some(inner) = manifest["manifests"].as_array() {
            // An index within the index: take this machine's image, under the outer name.
            let ours = inner
                .iter()
                .find(|m| m["platform"]["os"] == "linux" && m["platform"]["architecture"] == architecture());
            if let Some(ours) = ours.or(inner.first().filter(|m| m["platform"].is_null())) {
                let mut ours = ours.clone();
                ours["annotations"] = entry["annotations"].clone();
                queue.push(ours);
            }
            continue;
        }
        let config = manifest["config"]["digest"].as_str().unwrap_or_default();
        copy(c, lease, a, &blob(config), config).await?;
        for layer in manifest["layers"].as_array().into_iter().flatten() {
            let digest = layer["digest"].as_str().unwrap_or_default();
            copy(c, lease, a, &blob(digest), digest).await?;
        }
        let size = i64::try_from(document.len()).unwrap_or(i64::MAX);
        content::write_bytes(c, lease, &digest, document).await?;
        let notes = &entry["annotations"];
        let name = notes["io.containerd.image.name"]
            .as_str()
            .or(notes["org.opencontainers.image.ref.name"].as_str())
            .map_or_else(|| unnamed(&digest), str::to_owned);
        let media_type =
            manifest["mediaType"].as_str().or(entry["mediaType"].as_str()).unwrap_or(MANIFEST).to_owned();
        let manifest = Descriptor { media_type, digest, size, ..Descriptor::default() };
        out.push(Found { names: vec![name], manifest });
    }
    Ok(out)
}

fn unnamed(digest: &str) -> String {
    format!("import:{}", digest.trim_start_matches("sha256:").get(..12).unwrap_or("unknown"))
}

/// This machine's architecture in Go's words.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// `docker save`: plain layers and a configuration; the manifest is ours to write.
async fn load_docker(c: &Containerd, lease: &Lease, a: &Archive) -> Result<Vec<Found>, Error> {
    let io = || Error::io("read the archive");
    let images: Vec<DockerImage> = a.json("manifest.json").map_err(io())?;
    let mut out = Vec::new();
    for image in images {
        let (config_digest, config_size) = a.digest(&image.config).map_err(io())?;
        copy(c, lease, a, &image.config, &config_digest).await?;
        let mut layers = Vec::new();
        for layer in &image.layers {
            let (digest, size) = a.digest(layer).map_err(io())?;
            copy(c, lease, a, layer, &digest).await?;
            let media_type = "application/vnd.oci.image.layer.v1.tar";
            layers.push(json!({"mediaType": media_type, "digest": digest, "size": size}));
        }
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config_digest,
                "size": config_size,
            },
            "layers": layers,
        });
        let bytes = Bytes::from(manifest.to_string());
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        let size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        content::write_bytes(c, lease, &digest, bytes).await?;
        let names = image.repo_tags.filter(|t| !t.is_empty()).unwrap_or_else(|| vec![unnamed(&digest)]);
        let manifest = Descriptor { media_type: MANIFEST.to_owned(), digest, size, ..Descriptor::default() };
        out.push(Found { names, manifest });
    }
    Ok(out)
}

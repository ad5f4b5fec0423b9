/** JSON of Kubernetes objects as YAML, for reading. */

function scalar(v: unknown): string {
  if (typeof v !== "string") return String(v);
  const plain = /^[A-Za-z0-9_./][A-Za-z0-9_./:@ -]*$/.test(v) && !/: |:$| $/.test(v);
  const looksLikeOther = /^(true|false|null|yes|no|on|off|~)$/i.test(v) || /^[\d.+-]/.test(v);
  return plain && !looksLikeOther ? v : JSON.stringify(v);
}

export function toYaml(value: unknown, indent = ""): string {
  if (Array.isArray(value)) {
    if (value.length === 0) return " []\n";
    return `\n${value
      .map((v) => {
        const inner = toYaml(v, `${indent}  `);
        return `${indent}-${inner.startsWith("\n") ? ` ${inner.slice(1 + indent.length + 2)}` : inner}`;
      })
      .join("")}`;
  }
  if (value !== null && typeof value === "object") {
    const entries = Object.entries(value).filter(([, v]) => v !== undefined);
    if (entries.length === 0) return " {}\n";
    return `\n${entries
      .map(([k, v]) => `${indent}${scalar(k)}:${toYaml(v, Array.isArray(v) ? indent : `${indent}  `)}`)
      .join("")}`;
  }
  if (typeof value === "string" && value.includes("\n")) {
    return ` |\n${value.replace(/\n$/, "").split("\n").map((l) => `${indent}${l}\n`).join("")}`;
  }
  return ` ${scalar(value)}\n`;
}

/** Without what only machines read. */
export function objectYaml(object: object): string {
  const copy = structuredClone(object) as { metadata?: { managedFields?: unknown } };
  delete copy.metadata?.managedFields;
  return toYaml(copy).slice(1);
}

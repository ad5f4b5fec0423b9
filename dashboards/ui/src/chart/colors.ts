/** Colours by name, as the theme has them now. */

const COUNT = 8;

export const seriesColor = (i: number): string => `var(--s${i % COUNT})`;

/** A canvas knows no variables: the colour a browser makes of the token. */
export function computed(color: string): string {
  const probe = document.createElement("span");
  probe.style.color = color;
  document.body.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}

/** The same name has the same colour everywhere. */
export function nameColor(name: string): string {
  let hash = 0;
  for (let i = 0; i < name.length; i++) hash = (hash * 31 + name.charCodeAt(i)) | 0;
  return seriesColor(Math.abs(hash) % 7);
}

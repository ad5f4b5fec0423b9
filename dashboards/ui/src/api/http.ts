/** Requests to our own APIs; errors carry what the server said. */

export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number,
  ) {
    super(message);
  }
}

/** Prometheus, Kubernetes and plain-text errors, as one sentence. */
async function message(response: Response): Promise<string> {
  const text = await response.text();
  try {
    const body = JSON.parse(text) as { error?: string; message?: string };
    return body.error ?? body.message ?? text;
  } catch {
    return text.trim() || `${response.status} ${response.statusText}`;
  }
}

export async function request(path: string, init?: RequestInit): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...init });
  } catch (e) {
    if (e instanceof DOMException && e.name === "AbortError") throw e;
    throw new ApiError("Binnacle does not answer. Is it running?", 0);
  }
  if (response.status === 401) {
    throw new ApiError("You are logged out. Run `sudo binnacle open` and open the link it prints.", 401);
  }
  if (!response.ok) throw new ApiError(await message(response), response.status);
  return response;
}

export async function get<T>(
  path: string,
  params: Record<string, string | number | undefined> = {},
  signal?: AbortSignal,
): Promise<T> {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    if (value !== undefined && value !== "") search.set(name, String(value));
  }
  const query = search.toString();
  const response = await request(query ? `${path}?${query}` : path, signal ? { signal } : {});
  return (await response.json()) as T;
}

/** What a browser sends to the endpoints. */
export function chatRequest(url: string, user: string, message: string, init: RequestInit = {}) {
  return new Request(new URL("/chat", url), {
    method: "POST",
    // A new connection each time, which a cluster gives to its next process.
    headers: { Authorization: `Bearer token-of-${user}`, Connection: "close" },
    body: JSON.stringify({ message }),
    ...init,
  });
}

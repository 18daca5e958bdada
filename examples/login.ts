/** Tokens of two users, who have signed in. */
const users: ReadonlyMap<string, string> = new Map([
  ["Bearer token-of-ada", "ada"],
  ["Bearer token-of-bob", "bob"],
]);

/**
 * Put your login here: it tells who sent a request, by the id that this person has in your database. An id that the client
 * chooses lets anybody read anybody's conversation, and one made for the request finds nothing again.
 *
 * @param authorization The request's header of this name.
 */
export function signedInUser(authorization: string | null | undefined): string | undefined {
  return users.get(authorization ?? "");
}

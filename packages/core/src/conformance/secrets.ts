import { inspect } from "node:util";
import type { Arbitrary } from "fast-check";
import { holds } from "./claims.js";
import { need, type Subject } from "./subject.js";
import { describe, fc, test } from "./tools.js";

/** The password that `unreachable` options carry, where they can. */
const secret = "hunter2-canary";

/** Nobody who logs an error, or a store, logs a password; a URL that cannot be meant is refused. */
export function secrets(subject: Subject): void {
  const timeout = 300;

  test("no secret is printed, however wrong the URL is that holds it", async () => {
    const plain = subject.optionsOf(subject.namespace());
    const urls = [...wrongUrls(schemeOf(subject)), ...fc.sample(anyUrl(schemeOf(subject)), 200)];
    const given = urls.flatMap((url) => [{ url }, { ...plain, url }]);
    while (given.length > 0) {
      await Promise.all(
        given
          .splice(0, 100)
          .map((options) => check({ ...options, timeout }, JSON.stringify(options.url))),
      );
    }
  });

  test("no secret is printed by a store that cannot reach its engine, nor by whoever logs the store", async (context) => {
    const options = need(context, subject.unreachable, "unreachable");
    await check({ ...options, timeout }, "the options");
  });

  describe("a URL", () => {
    test("with a wrong part is refused at once, and not led elsewhere", async (context) => {
      const url = need(context, serverUrlOf(subject), "unreachable: { url }");
      const options = { ...subject.unreachable, timeout };
      for (const [part, wrong] of Object.entries(wrongParts(url))) {
        let code = "nothing";
        try {
          await subject.openWith({ ...options, url: wrong }).open();
        } catch (error) {
          code = (error as { code: string }).code;
        }
        holds(code === "INVALID_OPTIONS", `A URL with ${part} is ${code}, not INVALID_OPTIONS`);
      }
    });
  });

  /** Make a store and open it: nothing that can be seen of either holds the secret. */
  async function check(options: object, given: string): Promise<void> {
    const seen: unknown[] = [];
    const see = (what: unknown) => void seen.push(what);
    try {
      const store = subject.openWith({ ...options, onWarning: see, onError: see });
      seen.push(store);
      await store.open();
    } catch (error) {
      seen.push(error);
    }
    for (const what of seen) tellsNoSecret(what, given);
  }
}

/** Nothing that a log can show of it (message, stack, causes, hidden properties, JSON) holds the secret. */
export function tellsNoSecret(what: unknown, loss: string): void {
  const shown = [inspect(what, { depth: 12, showHidden: true, maxStringLength: null })];
  for (let at = what, depth = 0; at instanceof Error && depth < 12; at = at.cause, depth++) {
    shown.push(String(at), at.stack ?? "", inspect(at, { depth: 12 }));
  }
  try {
    shown.push(JSON.stringify(what) ?? "");
  } catch {
    // A cycle: nobody can log it as JSON.
  }
  const told = shown.find((text) => text.includes(secret));
  holds(told === undefined, `${loss}: the password is shown: ${told}`);
}

function serverUrlOf({ unreachable }: Subject): string | undefined {
  const url = unreachable?.["url"];
  return typeof url === "string" && /^[a-z+]+:\/\/[^/?]+/.test(url) ? url : undefined;
}

function schemeOf(subject: Subject): string {
  return /^[a-z+]+/.exec(serverUrlOf(subject) ?? subject.name)?.[0] ?? subject.name;
}

/** Nobody listens there, and no name has to be looked up. */
const host = "127.0.0.1:1";

/** What people forget to encode, in each place where it moves the password, and what they mix up. */
function wrongUrls(scheme: string): string[] {
  const special = [..."/?#@:%[]\\ \n'\"&=,;é", "%zz", ""];
  const passwords = special.flatMap((one) => [`${secret}${one}1`, `1${one}${secret}`]);
  return [`${scheme}://`, "", "nothing://", "://"].flatMap((start) => [
    ...passwords.map((password) => `${start}localhost:${password}@${host}/0`),
    ...passwords.map((password) => `${start}:${password}@${host}`),
    `${start}localhost:${secret}`,
    `${start}${host}/0?password=${secret}`,
    `${start}${host}/0?${secret}=1`,
    `${start}${host}/0#${secret}`,
  ]);
}

function anyUrl(scheme: string): Arbitrary<string> {
  const special = [..."/?#:%[]&= \\\n'1", "//", "localhost", "%2F"];
  const pieces = (...more: string[]) =>
    fc.array(fc.constantFrom(...special, ...more), { maxLength: 6 }).map((list) => list.join(""));
  // Before it no @: what follows one may be a host, and hosts are shown.
  return fc
    .tuple(fc.constantFrom(`${scheme}://`, ""), pieces(), pieces("@", host))
    .map(([start, before, after]) => `${start}localhost:${before}${secret}${after}@${host}`);
}

function wrongParts(url: string): Record<string, string> {
  const [, start = "", place = "", rest = ""] =
    /^([a-z+]+:\/\/(?:[^@/]*@)?)([^/?]+)(.*)$/.exec(url) ?? [];
  const name = place.replace(/:\d+$/, "");
  const scheme = start.replace(/:\/\/.*/, "://");
  return {
    "a port that is no number": `${start}${name}:x${rest}`,
    "a port beyond 65535": `${start}${name}:65536${rest}`,
    "a % that encodes nothing": `${scheme}me:100%@${place}${rest}`,
    "a fragment": `${url}#there`,
    "a second @": `${scheme}me:a@b@${place}${rest}`,
    "white space": `${start}${place} ${rest}`,
    "another scheme": `ftp://${place}${rest}`,
  };
}

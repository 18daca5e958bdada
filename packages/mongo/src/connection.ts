/** How operations reach the server: the client, giving up in time, and what a failure means. */
import { setTimeout as delay } from "node:timers/promises";
import {
  BackendError,
  ChatStoreError,
  type FailureOutcome,
  InvalidOptionsError,
  parseServerUrl,
  redact,
  refuseUrl,
  type ServerUrl,
  TimeoutError,
} from "@chatstore/core";
import { type Db, type Document, MongoClient, type MongoClientOptions } from "mongodb";
import type { ConnectionOptions } from "./options.js";

const defaultTimeout = 5_000;
const urlRules = {
  schemes: ["mongodb", "mongodb+srv"],
  hosts: "many",
  example: "mongodb://user:password@host:27017/database",
} as const;

/** The server, through a client whose operations fail in time and tell nothing secret. */
export class Connection {
  readonly db: Db;
  readonly #client: MongoClient | undefined;
  /** Whether the client was made here, so that it is closed here. */
  readonly #isOwn: boolean;
  /** Whatever was sent went through one. */
  readonly #handedOut: { readonly count: number } | undefined;
  /** Whether the driver sends a write a second time, by itself, when the first time broke off. */
  #sendsAgain = true;
  /** Why the last operation did not reach a server. */
  #unreached: string | undefined;

  /** @throws InvalidOptionsError for options that are wrong, missing, or contradict each other. */
  constructor(options: ConnectionOptions & { readonly timeout?: number | undefined }) {
    const { url, client, db, mongo, database } = options;
    checkOptions(options);
    this.#isOwn = url !== undefined;
    if (url === undefined) {
      this.db = db ?? (client as MongoClient).db(database);
      // Drivers before 7 keep it to themselves.
      this.#client = client ?? (this.db as { client?: MongoClient }).client;
    } else {
      const parts = partsOf(url);
      this.#client = createClient(url, parts, mongo, options.timeout ?? defaultTimeout);
      this.db = this.#client.db(database ?? parts.database ?? "chatstore");
    }
    this.#handedOut = this.#client && connectionsOf(this.#client);
  }

  /**
   * Run an operation. Settles at the latest when the signal aborts.
   *
   * @param outcome Of the write that it belongs to, when the failure does not tell.
   */
  async run<T>(
    signal: AbortSignal,
    outcome: FailureOutcome,
    operation: (db: Db) => Promise<T>,
  ): Promise<T> {
    if (signal.aborted) throw this.#tooLate("not-applied");
    const before = this.#handedOut?.count;
    // Others that run at the same time may have got it: then it is not certain either.
    const gotNone = () => before !== undefined && before === this.#handedOut?.count;
    // This copy of the driver is known to send nothing after the signal.
    const isCancelled = () => gotNone() && this.#client instanceof MongoClient;
    return new Promise<T>((resolve, reject) => {
      const onAbort = () => reject(this.#tooLate(isCancelled() ? "not-applied" : outcome));
      signal.addEventListener("abort", onAbort, { once: true });
      const fail = (error: unknown) => {
        const unsent = this.#sendsAgain && !gotNone() ? outcome : "not-applied";
        const failure = toChatStoreError(error, outcome, unsent);
        this.#unreached = isUnsent(error) ? failure.message : undefined;
        reject(failure);
      };
      operation(this.db)
        .then((result) => {
          this.#unreached = undefined;
          resolve(result);
        }, fail)
        .finally(() => signal.removeEventListener("abort", onAbort));
    });
  }

  /**
   * Rejects with what keeps the client from connecting. Once it has, it finds its servers again by itself.
   *
   * @returns What the server says of itself.
   */
  async connect(signal: AbortSignal): Promise<Document> {
    await this.run(signal, "not-applied", async () => {
      await this.#client?.connect();
    });
    const hello = await this.run(signal, "not-applied", (db) =>
      db.command({ hello: 1 }, { readPreference: "primary" }),
    );
    this.#sendsAgain = hello["setName"] !== undefined || hello["msg"] === "isdbgrid";
    return hello;
  }

  /** Release what was opened here. */
  async close(): Promise<void> {
    if (!this.#isOwn) return;
    // A server that does not answer does not hold up the end.
    const patience = delay(1_000, undefined, { ref: false });
    await Promise.race([this.#client?.close().catch(() => undefined), patience]);
  }

  #tooLate(outcome: FailureOutcome): TimeoutError {
    return new TimeoutError(this.#unreached ?? "MongoDB did not answer in time", { outcome });
  }
}

/** By client: many stores may have the same. */
const counters = new WeakMap<MongoClient, { count: number }>();

/** Counts the connections that a client hands out to operations. */
function connectionsOf(client: MongoClient): { readonly count: number } {
  const known = counters.get(client);
  if (known !== undefined) return known;
  const counter = { count: 0 };
  counters.set(client, counter);
  client.on("connectionCheckedOut", () => counter.count++);
  return counter;
}

function partsOf(url: string): ServerUrl {
  // A password with a question mark and an @ would pass for a port, parameters, and a part of one.
  if (/\?.*@/s.test(url)) refuseUrl("The url", 'holds an "@" behind a "?"', urlRules.example);
  return parseServerUrl(url, urlRules);
}

function createClient(
  url: string,
  parts: ServerUrl,
  mongo: MongoClientOptions | undefined,
  timeout: number,
): MongoClient {
  // Half a timeout: so another connection, or another server, gets a chance.
  const patience = Math.max(Math.floor(timeout / 2), 250);
  const defaults = {
    serverSelectionTimeoutMS: patience,
    connectTimeoutMS: patience,
    socketTimeoutMS: patience,
    waitQueueTimeoutMS: patience,
  };
  const given = new Set([...parts.parameters.keys()].map((name) => name.toLowerCase()));
  const own = Object.entries(defaults).filter(([name]) => !given.has(name.toLowerCase()));
  try {
    return new MongoClient(url, { appName: "chatstore", ...Object.fromEntries(own), ...mongo });
  } catch (error) {
    const { message } = error as Error;
    // The driver may cite what it was given.
    const values = [parts.password, mongo?.auth?.password, ...[...parts.parameters].flat()];
    const says = values.some((value) => value && message.includes(value)) ? "" : `: ${message}`;
    throw new InvalidOptionsError(
      `The driver does not take the url's parameters, or the options in mongo${says}`,
    );
  }
}

function checkOptions({ url, client, db, mongo, database }: ConnectionOptions): void {
  const given = Object.entries({ url, client, db }).filter(([, value]) => value !== undefined);
  if (given.length === 0) {
    throw new InvalidOptionsError(
      'Which MongoDB server? Give a url ("mongodb://localhost:27017/app"), a client or a db',
    );
  }
  if (given.length > 1) {
    const names = given.map(([name]) => name).join(" and ");
    throw new InvalidOptionsError(`Give either a url, a client or a db, not ${names}`);
  }
  if (url === undefined && mongo !== undefined) {
    throw new InvalidOptionsError("mongo belongs to url: an own client has its own options");
  }
  if (db !== undefined && database !== undefined) {
    throw new InvalidOptionsError("database belongs to url or client: db is one already");
  }
  for (const [name, value, method] of [
    ["client", client, "db"],
    ["db", db, "collection"],
  ] as const) {
    if (value !== undefined && typeof (value as never)?.[method] !== "function") {
      throw new InvalidOptionsError(`${name} is no ${name} of the mongodb driver`);
    }
  }
}

/** What the driver's errors have in common. By shape, because an own client may come from another copy of the driver. */
interface DriverError extends Error {
  readonly code?: unknown;
  readonly codeName?: unknown;
  readonly errorLabels?: readonly string[];
  readonly reason?: { readonly servers?: ReadonlyMap<string, { readonly error?: unknown }> };
}

/** Names of errors that say: this time the operation did not leave the process, or no server took it. */
const notSent =
  /^Mongo(ServerSelection|WaitQueueTimeout|PoolCleared|PoolClosed|PoolClearedOnNetwork|NotConnected|TopologyClosed|ServerClosed|ClientClosed|InvalidArgument|Compatibility|Parse|MissingCredentials|MissingDependency|API|Runtime|StalePrimary)Error$/;
/** Those of them that no waiting mends, and that come before anything is sent. */
const misused =
  /^Mongo(InvalidArgument|Compatibility|Parse|MissingCredentials|MissingDependency|ClientClosed|API)Error$/;
/** Codes of a server that steps down, shuts down, or has lost another one: later it works. */
const passing = new Set([
  6, 7, 63, 89, 91, 112, 133, 134, 150, 189, 262, 9001, 10058, 10107, 11600, 11602, 13388, 13435,
  13436,
]);
/** Those of them that say: the write was refused before it began. */
const refused = new Set([112, 133, 134, 10058, 10107, 13435, 13436]);

/**
 * What was thrown, as a Chatstore error.
 *
 * @param unsent The outcome when the operation was not sent, the last time that the driver tried.
 */
function toChatStoreError(
  error: unknown,
  outcome: FailureOutcome,
  unsent: FailureOutcome,
): ChatStoreError {
  if (error instanceof ChatStoreError) return error;
  if (!(error instanceof Error)) {
    return new BackendError(`MongoDB failed: ${String(error)}`, { retryable: false, outcome });
  }
  const { name, code, errorLabels = [] } = error as DriverError;
  const failed = (retryable: boolean, outcome: FailureOutcome) =>
    new BackendError(`MongoDB failed: ${reasonOf(error)}${adviceOn(error)}`, {
      retryable,
      outcome,
      cause: withoutSecrets(error),
    });
  if (name === "MongoWriteConcernError" || "writeConcernError" in error) {
    // Done on the primary, and not known to have reached the others. 79 and 100: there are not so many.
    return failed(code !== 79 && code !== 100, outcome);
  }
  if (typeof code === "number") {
    if (!passing.has(code) && !errorLabels.includes("RetryableWriteError")) {
      return failed(false, code === 50 ? outcome : "not-applied");
    }
    return failed(true, refused.has(code) ? "not-applied" : outcome);
  }
  if (misused.test(name)) return failed(false, "not-applied");
  if (isUnsent(error)) return failed(true, unsent);
  // A bulk write without a code wraps a failure of the network; a socket's own error sometimes comes without a wrapping.
  const socket = name === "Error" && typeof code === "string";
  return failed(
    socket || /^Mongo(Network|BulkWrite|Cursor|Expired|OperationTimeout)/.test(name),
    outcome,
  );
}

/** Whether nothing failed but the insertion of what is there. */
export function isDuplicateKey(error: unknown): boolean {
  const { code, writeErrors } = error as { code?: unknown; writeErrors?: unknown };
  const all = Array.isArray(writeErrors) ? (writeErrors as { code?: unknown }[]) : [{ code }];
  return code === 11000 && all.every((one) => one.code === 11000);
}

function isUnsent(error: unknown): boolean {
  const { name, errorLabels = [] } = error as DriverError;
  return notSent.test(name) || errorLabels.includes("HandshakeError");
}

/** Why no server was selected stands in the description of the servers. */
function reasonOf(error: DriverError): string {
  const message = withoutRequest(error);
  const servers = error.reason?.servers;
  if (!(servers instanceof Map)) return message;
  const reasons = [...servers].flatMap(([address, { error: reason }]) =>
    reason instanceof Error && !message.includes(reason.message)
      ? [`${address}: ${reason.message}`]
      : [],
  );
  return [message, ...reasons].join("; ");
}

function adviceOn({ code, message }: DriverError): string {
  switch (code) {
    case 2:
      return /journal/.test(message)
        ? " Start the server with its journal: without it, a crash takes what it has acknowledged."
        : "";
    case 18:
      return " Check user and password, and the URL's authSource.";
    case 13:
      return " Grant the user the role readWrite on the database.";
    case 10334:
    case 17419:
    case 17420:
      return " (A session's title and state must fit into one document of 16 MB, beside a batch of messages.)";
    default:
      return "";
  }
}

/** A server that refuses a request may quote it, and so the messages in it. */
function withoutRequest({ message, code }: DriverError): string {
  return typeof code === "number" ? message.replace(/ *\{.*/s, "") : message;
}

/** The driver attaches descriptions, requests and replies to errors. */
function withoutSecrets(error: DriverError): Error {
  const { name, stack = "", code, codeName } = error;
  const bare = new Error(redact(withoutRequest(error)));
  bare.name = name;
  // Behind the message, in which a line may look like one of the stack's.
  const begin = stack.indexOf(error.message);
  const frames = begin < 0 ? "" : stack.slice(begin + error.message.length);
  bare.stack = `${name}: ${bare.message}${/\n {4}at .*/s.exec(frames)?.[0] ?? ""}`;
  return Object.assign(
    bare,
    code !== undefined && { code },
    typeof codeName === "string" && { codeName },
  );
}

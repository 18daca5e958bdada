/** How statements reach the server: the pool, transactions, giving up, and what a failure means. */
import { hash } from "node:crypto";
import {
  BackendError,
  type ChatStoreError,
  type FailureOutcome,
  InvalidOptionsError,
  parseServerUrl,
  refuseUrl,
  SchemaError,
  TimeoutError,
} from "@chatstore/core";
import pg, {
  type Client,
  type Pool,
  type PoolClient,
  type PoolConfig,
  type QueryConfig,
  type QueryResult,
} from "pg";
import { parseIntoClientConfig } from "pg-connection-string";
import { type Names, named, type Sql, statements } from "./schema.js";

/** Milliseconds that connections have to say goodbye when the store closes. */
const closingTime = 500;
/**
 * Milliseconds by which the pool, and the server that waits for a lock, give up later than the operation, which says more: who
 * is first is chance otherwise.
 */
const graceTime = 1_000;

declare const signature: unique symbol;
/** A statement on the tables of one store. */
export interface Statement<Parameters extends unknown[] = unknown[], Row = unknown> {
  readonly text: string;
  /** Under which connections keep it prepared. One text, one name: a pooler may lend a connection of another store. */
  readonly name?: string;
  readonly [signature]?: (...parameters: Parameters) => Row;
}

export type Statements = {
  readonly [Name in keyof typeof statements]: (typeof statements)[Name] extends Sql<
    infer Parameters,
    infer Row
  >
    ? Statement<Parameters, Row>
    : never;
};

/** The statements on the tables with these names. */
export function statementsOn(names: Names): Statements {
  const entries = Object.entries(statements).map(([name, sql]) => {
    const text = named(sql, names);
    return [name, { text, name: `chatstore_${hash("sha256", text).slice(0, 20)}` }];
  });
  return Object.fromEntries(entries) as Statements;
}

/** SQL without parameters, as many commands as it has. */
export function script(text: string): Statement<[]> {
  return { text };
}

/** Runs a statement in a transaction. */
export type Run = <Parameters extends unknown[], Row>(
  statement: Statement<Parameters, Row>,
  ...parameters: Parameters
) => Promise<{ readonly rows: readonly Row[]; readonly count: number }>;

/** The server, through a pool. When a signal aborts, the connection in use is closed: nothing is left to wait for. */
export class Connections {
  readonly #pool: Pool;
  readonly #owned: boolean;
  readonly #clients = new Set<Client>();
  readonly #begin: Statement<[]>;
  /** Whether the server that we are connected to now is the one that prepared a statement: not so behind some poolers. */
  #prepares = true;
  #closed: Promise<void> | undefined;

  /**
   * @param source A pool of somebody's own, or what to make one of.
   * @param timeout Milliseconds that an operation may take.
   */
  constructor(source: Pool | PoolConfig, timeout: number) {
    this.#owned = !isPool(source);
    this.#pool = isPool(source)
      ? source
      : new pg.Pool({
          keepAlive: true,
          // A process that forgets to close the store ends all the same.
          allowExitOnIdle: true,
          fallback_application_name: "chatstore",
          connectionTimeoutMillis: timeout + graceTime,
          ...source,
          Client: remembering(this.#clients),
        });
    // A pool emits what befalls its idle connections, and that would end the process. It has replaced them by then.
    this.#pool.on("error", ignore);
    // READ COMMITTED, so that a statement sees what was committed before it got its lock. A process that was stopped
    // loses its locks while others still wait for them; the request of one that has given up does not wait on.
    const idle = Math.max(Math.ceil(timeout / 2), 1_000);
    this.#begin =
      script(`BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = ${timeout + graceTime};
      SET LOCAL idle_in_transaction_session_timeout = ${idle}`);
  }

  /** Run a statement that changes nothing. */
  read<Parameters extends unknown[], Row>(
    signal: AbortSignal,
    statement: Statement<Parameters, Row>,
    ...parameters: Parameters
  ): Promise<readonly Row[]> {
    return this.#use(signal, (connection) =>
      connection.run(statement, parameters, "not-applied"),
    ).then(({ rows }) => rows);
  }

  /** Run a statement as a transaction of its own. */
  write<Parameters extends unknown[], Row>(
    signal: AbortSignal,
    statement: Statement<Parameters, Row>,
    ...parameters: Parameters
  ): Promise<{ readonly rows: readonly Row[]; readonly count: number }> {
    return this.#use(signal, (connection) => connection.run(statement, parameters, "unknown"));
  }

  /** Run `work` in a transaction, and commit it if `commits` says so of the result. */
  transaction<T>(
    signal: AbortSignal,
    work: (run: Run) => Promise<T>,
    commits: (result: T) => boolean,
  ): Promise<T> {
    return this.#use(signal, async (connection) => {
      await connection.run(this.#begin, [], "not-applied");
      let result: T;
      try {
        result = await work((statement, ...parameters) =>
          connection.run(statement, parameters, "not-applied"),
        );
      } catch (error) {
        if (!connection.broken) await connection.run(rollback, [], "not-applied");
        throw error;
      }
      if (commits(result)) await connection.run(commit, [], "unknown");
      else await connection.run(rollback, [], "not-applied");
      return result;
    });
  }

  /** Returns connections to an own pool; closes those that were made here. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    if (!this.#owned) {
      this.#pool.off("error", ignore);
      return;
    }
    const clients = [...this.#clients];
    const gone = clients.map((client) => new Promise((resolve) => client.once("end", resolve)));
    // A server that does not answer does not say goodbye either.
    const timer = setTimeout(() => {
      for (const { connection } of clients) connection.stream.destroy();
    }, closingTime);
    await this.#pool.end();
    await Promise.all(gone); // which the pool does not wait for
    clearTimeout(timer);
  }

  async #use<T>(signal: AbortSignal, work: (connection: Connection) => Promise<T>): Promise<T> {
    const client = await this.#connect(signal);
    const connection = new Connection(client, this.#prepares);
    let released = false;
    const release = (destroy: boolean) => {
      if (!released) client.release(destroy);
      released = true;
    };
    const abort = () => {
      connection.giveUp();
      release(true);
    };
    signal.addEventListener("abort", abort);
    try {
      signal.throwIfAborted();
      return await work(connection);
    } finally {
      release(connection.broken);
      this.#prepares &&= connection.prepares;
      client.off("error", ignore);
      signal.removeEventListener("abort", abort);
    }
  }

  #connect(signal: AbortSignal): Promise<PoolClient> {
    return new Promise((resolve, reject) => {
      signal.throwIfAborted();
      const abort = () => reject(tooLate("not-applied"));
      signal.addEventListener("abort", abort);
      this.#pool.connect((error, client) => {
        signal.removeEventListener("abort", abort);
        if (client === undefined) {
          reject(toFailure(error, "not-applied", "Cannot connect to PostgreSQL"));
        } else if (signal.aborted) client.release();
        else {
          // At once: a server's farewell can come in one packet with its greeting.
          client.on("error", ignore);
          resolve(client);
        }
      });
    });
  }
}

/** A connection while it is in use. */
class Connection {
  readonly #client: PoolClient;
  prepares: boolean;
  /** Whether it is of no further use. */
  broken = false;
  /** Settles what waits for the server. */
  #reject: ((error: unknown) => void) | undefined;
  #lost: FailureOutcome = "not-applied";

  constructor(client: PoolClient, prepares: boolean) {
    this.#client = client;
    this.prepares = prepares;
  }

  /**
   * By pg's callback: the garbage of a query that pg makes a promise for survives the quick collections (a tenth of the
   * CPU time of a read).
   *
   * @param lost What is known of the outcome when the connection breaks.
   */
  run<Parameters extends unknown[], Row>(
    { text, name }: Statement<Parameters, Row>,
    parameters: Parameters,
    lost: FailureOutcome,
  ): Promise<{ readonly rows: readonly Row[]; readonly count: number }> {
    const query: QueryConfig = {
      text,
      values: parameters,
      types,
      name: this.prepares ? name : undefined,
    };
    return new Promise((resolve, reject) => {
      if (this.broken) return reject(tooLate("not-applied"));
      this.#reject = reject;
      this.#lost = lost;
      void this.#client.query(query, (error: unknown, result: QueryResult<Row & object>) => {
        if (error) reject(this.#failed(error, lost));
        else resolve({ rows: result.rows, count: result.rowCount ?? 0 });
      });
    });
  }

  /** Reject what waits at once, since it is known here whether it can have happened: nothing has before a commit. */
  giveUp(): void {
    this.broken = true;
    this.#reject?.(tooLate(this.#lost));
  }

  #failed(error: unknown, lost: FailureOutcome): ChatStoreError {
    const state = sqlState(error);
    // Where every transaction may get another server connection, the next attempt does without.
    if (state === "26000" || state === "42P05") this.prepares = false;
    this.broken ||= state === undefined || connectionStates.test(state);
    return toFailure(error, lost, "PostgreSQL failed");
  }
}

const commit = script("COMMIT");
const rollback = script("ROLLBACK");

/** Whatever the types of an own pool: numbers (none is beyond 2^53), booleans, and text as it is, JSON too. */
const types = {
  getTypeParser: (type: number) =>
    type === pg.types.builtins.INT8 || type === pg.types.builtins.INT4
      ? Number
      : type === pg.types.builtins.BOOL
        ? isTrue
        : asItIs,
};
const isTrue = (value: string) => value === "t";
const asItIs = (value: string) => value;

/**
 * The pool's settings: those of the URL, and over them the ones that were given beside it.
 *
 * @throws InvalidOptionsError for a URL that is none, or beside a pool that is connected already.
 */
export function poolOf(options: {
  readonly url?: string | undefined;
  readonly pool?: Pool | PoolConfig | undefined;
}): Pool | PoolConfig {
  const { url, pool = {} } = options;
  if (typeof pool !== "object" || pool === null) {
    throw new InvalidOptionsError("pool must be a Pool of pg, or settings for one");
  }
  if (isPool(pool)) {
    if (url !== undefined) {
      throw new InvalidOptionsError("Give url or a pool of your own, not both");
    }
    return pool;
  }
  const { connectionString, ...settings } = pool;
  return {
    ...(connectionString !== undefined && settingsOf(connectionString, "pool.connectionString")),
    ...(url !== undefined && settingsOf(url, "The url")),
    ...settings,
  };
}

/** What a URL says. It is taken apart here: pg's own error would show it. */
function settingsOf(url: string, name: string): PoolConfig {
  const example = "postgres://user:password@host:5432/database";
  // A password with a question mark and an @ would pass for a port, parameters, and a part of one.
  if (/\?.*@/s.test(url)) refuseUrl(name, 'holds an "@" behind a "?"', example);
  const { password, parameters } = parseServerUrl(url, {
    schemes: ["postgres", "postgresql"],
    hosts: "optional",
    example,
    name,
  });
  try {
    // Parts that the URL leaves out are empty strings, and would hide the settings beside it.
    const given = Object.entries(parseIntoClientConfig(url)).filter(([, value]) => value !== "");
    return Object.fromEntries(given);
  } catch (error) {
    const { message } = error as Error;
    const values = [password, ...(parameters.has("password") ? parameters.values() : [])];
    const says = values.some((value) => value && message.includes(value)) ? "" : `: ${message}`;
    throw new InvalidOptionsError(`${name} cannot be read by pg${says}`);
  }
}

/** The SQLSTATE that the server gave for a failure. */
export function sqlState(error: unknown): string | undefined {
  if (error instanceof BackendError) return sqlState(error.cause);
  const { code, severity } = (error ?? {}) as { code?: unknown; severity?: unknown };
  return typeof code === "string" && severity !== undefined ? code : undefined;
}

/** Not by class: another copy of pg makes pools too. */
function isPool(source: Pool | PoolConfig): source is Pool {
  return "connect" in source && typeof source.connect === "function";
}

function remembering(clients: Set<Client>): NonNullable<PoolConfig["Client"]> {
  return class extends pg.Client {
    constructor(config?: pg.ClientConfig) {
      super(config);
      clients.add(this);
      this.on("end", () => clients.delete(this));
    }
  };
}

/** States after which a connection is gone, or leads to a server that cannot be written to. */
const connectionStates = /^(08|57P0[1235]|25P0[34]|25006)/;
/** States that pass: the connection's, lack of resources, a lost race, a lock not got in time, a statement cancelled. */
const passingStates = /^(08|53|57P0|57014|40001|40P01|55P03|25P0[34]|25006|26000|42P05)/;
const missingStates = /^(42P01|3F000|42703)$/;
const passingCodes =
  /^(ECONN(REFUSED|RESET|ABORTED)|EPIPE|ETIMEDOUT|E(HOST|NET)(UNREACH|DOWN)|ENOTFOUND|EAI_AGAIN|ENOENT)$/;
const passingMessages = /^(Connection terminated|timeout exp|timeout exc|Client (has en|was cl))/;

const advice: Readonly<Record<string, string>> = {
  "25006": "the server is a standby, or read-only: let the url lead to the primary",
  "28000": "pg_hba.conf does not admit this user from here, or only with TLS (pool: { ssl: true })",
  "28P01": "check user and password",
  "3D000": "create the database, or correct its name",
  "42501": "grant the rights that the README names",
  "53300": "raise max_connections, lower pool.max, or put a pooler in front",
};

function toFailure(error: unknown, lost: FailureOutcome, what: string): ChatStoreError {
  const state = sqlState(error);
  const {
    code = "",
    message = "",
    errors = [],
  } = error as Partial<AggregateError> & { code?: string };
  if (state !== undefined && missingStates.test(state)) return new MissingTableError(message);
  const said = message || errors.map((one: Error) => one.message).join(", ") || code;
  const help = state === undefined ? undefined : advice[state];
  return new BackendError(`${what}: ${said}${help === undefined ? "" : ` (${help})`}`, {
    retryable:
      state === undefined
        ? passingCodes.test(code) || passingMessages.test(message)
        : passingStates.test(state),
    outcome: state === undefined || connectionStates.test(state) ? lost : "not-applied",
    cause: error,
  });
}

export const schemaAdvice =
  'let somebody with the rights run the SQL of postgresSchema(), or open with migrate: "auto"';

/** A table, a column or the schema is not there. */
export class MissingTableError extends SchemaError {
  constructor(message: string) {
    super(`${message}: ${schemaAdvice}`);
  }
}

function tooLate(outcome: FailureOutcome): TimeoutError {
  return new TimeoutError("PostgreSQL did not answer in time", { outcome });
}

function ignore(): void {}

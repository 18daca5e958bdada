import type { ChatStoreOptions } from "@chatstore/core";
import type { Pool, PoolConfig } from "pg";

/** Options of `postgresChatStore`. */
export interface PostgresChatStoreOptions extends ChatStoreOptions {
  /**
   * `postgres://user:password@host:5432/database`, percent-encoded. Default: pg's own, the environment variables
   * `PGHOST`, `PGUSER`, `PGPASSWORD` and so on.
   */
  readonly url?: string | undefined;
  /**
   * A pg pool of your own, which `close()` leaves open; or settings for the pool that the store makes, which win over the
   * URL: `{ ssl: { ca }, password: () => token(), max: 20 }`. An own pool should have a `connectionTimeoutMillis`.
   */
  readonly pool?: Pool | PoolConfig | undefined;
  /** The schema that holds the tables; any text of up to 63 bytes. Default: where the `search_path` leads. */
  readonly schema?: string | undefined;
  /** The names of all tables and indexes begin with it; any text of up to 45 bytes. Default: `chatstore_`. */
  readonly prefix?: string | undefined;
}

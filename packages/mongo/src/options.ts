import type { ChatStoreOptions } from "@chatstore/core";
import type { Db, MongoClient, MongoClientOptions } from "mongodb";

/** Which server, and how to reach it. One of `url`, `client` and `db` must be given. */
export interface ConnectionOptions {
  /** `mongodb://user:password@host:27017/database` or `mongodb+srv://…`, percent-encoded. */
  readonly url?: string | undefined;
  /** A client of your own. It stays yours: `close()` leaves it open. */
  readonly client?: MongoClient | undefined;
  /** A database of a client of your own. `close()` leaves the client open. */
  readonly db?: Db | undefined;
  /** The driver's own options beside `url`, which win over it: `tls`, `tlsCAFile`, `auth`, `maxPoolSize`, … */
  readonly mongo?: MongoClientOptions | undefined;
  /** The database. Default: the one in the URL, otherwise `chatstore`; with `client`, the client's own. */
  readonly database?: string | undefined;
}

/** Options of `mongoChatStore`. Give a `url`, a `client` or a `db`. */
export interface MongoChatStoreOptions extends ChatStoreOptions, ConnectionOptions {
  /** The names of the collections begin with it, followed by a dot. Default: `chatstore`. */
  readonly collection?: string | undefined;
}

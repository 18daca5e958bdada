/**
 * Real servers for tests and benchmarks: found or fetched, started on free ports, always stopped.
 *
 * @packageDocumentation
 */
export { type Cut, startProxy, type TcpProxy } from "@chatstore/core/conformance/proxy";
export { type Engine, EngineMissingError, type EngineName } from "./engine.js";
export {
  type MongoConfig,
  type MongoReplicaSet,
  type MongoServer,
  startMongo,
  startMongoReplicaSet,
  startMongoServer,
} from "./mongo.js";
export {
  type PgBouncer,
  type PostgresConfig,
  type PostgresServer,
  startPgBouncer,
  startPostgres,
  startPostgresServer,
} from "./postgres.js";
export {
  type RedisCluster,
  type RedisConfig,
  type RedisSentinels,
  type RedisServer,
  startRedis,
  startRedisCluster,
  startRedisSentinels,
  startRedisServer,
} from "./redis.js";
export { temporaryFolder } from "./server-process.js";

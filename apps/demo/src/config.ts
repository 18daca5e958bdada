import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type ChatStore, type ChatStoreConfig, openChatStore } from "@chatstore/core";
import { loadConfig } from "c12";

/** What the environment says. */
export interface Settings {
  /** `undefined`: the first free port from 3210 on. */
  readonly port: number | undefined;
  /** Server processes behind the port. */
  readonly workers: number;
  /** Holds the index and, unless another store is configured, the conversations. */
  readonly dataFolder: string;
  /** See `loadModel`. */
  readonly model: string;
}

/** A setting that cannot be used. */
export class SettingError extends Error {
  override readonly name = "SettingError";
}

/** @throws SettingError */
export function readSettings(env: NodeJS.ProcessEnv): Settings {
  return {
    port: env["PORT"] ? readNumber("PORT", env["PORT"], 0, 65_535) : undefined,
    workers: env["WORKERS"] ? readNumber("WORKERS", env["WORKERS"], 1, 64) : 1,
    dataFolder: env["DEMO_DATA"] || fileURLToPath(new URL("../data/", import.meta.url)),
    model: env["DEMO_MODEL"] || "offline",
  };
}

function readNumber(name: string, text: string, minimum: number, maximum: number): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < minimum || value > maximum) {
    throw new SettingError(
      `${name} is ${JSON.stringify(text)}: it takes a whole number from ${minimum} to ${maximum}`,
    );
  }
  return value;
}

/**
 * The store that `CHATSTORE_URL` or a `chatstore.config.{ts,js,json}` in the working directory names, otherwise SQLite in the
 * data folder. It is open: what is wrong with it, shows at start-up.
 */
export async function openStore(dataFolder: string): Promise<ChatStore> {
  if (process.env["CHATSTORE_URL"]) return openChatStore(process.env["CHATSTORE_URL"]);
  const { config } = await loadConfig<ChatStoreConfig>({
    name: "chatstore",
    rcFile: false,
    globalRc: false,
  });
  if (Object.keys(config).length > 0) return openChatStore(config);
  return openChatStore({ backend: "sqlite", path: join(dataFolder, "chat.db") });
}

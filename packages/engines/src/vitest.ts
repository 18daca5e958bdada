import { afterAll, test } from "vitest";
import { EngineMissingError } from "./engine.js";

/**
 * Start engines and define the tests that need them; stop them when the file is done. Without them the tests are one skip
 * that says what to install, or a failure when `CHATSTORE_REQUIRE_ENGINES` (a comma-separated list) names the engine.
 *
 * @example await withEngine(startRedis, (redis) => testChatStore({ … }));
 */
export async function withEngine<Started extends { stop(): Promise<void> }>(
  start: () => Promise<Started>,
  define: (engine: Started) => void | Promise<void>,
): Promise<void> {
  let engine: Started;
  try {
    engine = await start();
  } catch (error) {
    if (!(error instanceof EngineMissingError) || isRequired(error.engine)) throw error;
    process.stderr.write(`Skipped. ${error.message}\n`);
    test.skip(error.message, () => {});
    return;
  }
  afterAll(() => engine.stop());
  await define(engine);
}

function isRequired(engine: string): boolean {
  const names = process.env["CHATSTORE_REQUIRE_ENGINES"]?.split(",") ?? [];
  return names.some((name) => name.trim() === engine);
}

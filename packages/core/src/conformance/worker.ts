/**
 * A child process of the suite: opens stores and does with them what the parent says. Its one argument is by how many
 * milliseconds its clock goes wrong.
 */
import type { ChatStore } from "../chat-store.js";
import { skewClock } from "./clock.js";
import { callStore, type Request, type Response } from "./remote.js";
import { type Routine, routines } from "./routines.js";

skewClock(Number(process.argv[2] ?? 0));

const stores = new Map<number, ChatStore>();

/** Without its parent it has nothing to do, and must not outlive it. */
const orphaned = () => process.exit(1);
process.on("disconnect", orphaned);
process.on("message", (request: Request) => {
  handle(request).then(
    (value) => {
      answer({ id: request.id, value });
      if ("retire" in request) {
        process.off("disconnect", orphaned);
        process.disconnect();
      }
    },
    (error: unknown) => answer({ id: request.id, error: toPlain(error) }),
  );
});

async function handle(request: Request): Promise<unknown> {
  if ("open" in request) {
    const { module, factory, options } = request.open;
    const exports = (await import(module)) as Record<string, (options: object) => ChatStore>;
    const create = exports[factory];
    if (create === undefined) throw new Error(`${module} exports no ${factory}`);
    stores.set(request.id, create({ ...options, onWarning: () => {} }));
    return undefined;
  }
  if ("retire" in request) return undefined;
  const store = stores.get(request.store);
  if (store === undefined) throw new Error(`No store ${request.store} in this process`);
  if ("method" in request) return callStore(store, request.method, request.args);
  const routine = routines[request.routine] as Routine;
  return routine(store, request.args, (emitted) => answer({ id: request.id, emitted }));
}

function answer(response: Response): void {
  process.send?.(response);
}

/** An error's own fields (code, ids, …) do not travel with it. */
function toPlain(error: unknown): Record<string, unknown> {
  if (!(error instanceof Error)) return { name: "Error", message: String(error) };
  const { cause: _, ...fields } = error as Error & Record<string, unknown>;
  const { name, message, stack } = error;
  return { ...fields, name, message, stack };
}

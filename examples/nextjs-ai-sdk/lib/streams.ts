/**
 * The streams that are under way in this process, so that a reloaded page can go on with one. With several processes use
 * `resumable-stream` instead: what is stored, the id of the stream, is the same.
 */
interface Running {
  readonly chunks: string[];
  readonly abort: AbortController;
  /** Who waits for the next chunk, or the end. */
  waiting: (() => void)[];
  ended: boolean;
}

// Next.js bundles each route apart.
const shared = globalThis as { runningStreams?: Map<string, Running> };
shared.runningStreams ??= new Map();
const running = shared.runningStreams;

/** Before the model is asked. */
export function begin(id: string): AbortSignal {
  const abort = new AbortController();
  running.set(id, { chunks: [], abort, waiting: [], ended: false });
  return abort.signal;
}

/** Reads the stream to its end, whoever has gone: only so is the answer saved. */
export async function keep(id: string, stream: ReadableStream<string>): Promise<void> {
  const entry = running.get(id);
  if (entry === undefined) return;
  const reader = stream.getReader();
  try {
    for (let read = await reader.read(); !read.done; read = await reader.read()) {
      entry.chunks.push(read.value);
      tell(entry);
    }
  } catch {
    // The response has the same error.
  } finally {
    entry.ended = true;
    running.delete(id);
    tell(entry);
  }
}

function tell(entry: Running): void {
  const { waiting } = entry;
  entry.waiting = [];
  for (const wake of waiting) wake();
}

/** The whole stream, from its beginning; `undefined` when this process has none of this name. */
export function follow(id: string): ReadableStream<string> | undefined {
  const entry = running.get(id);
  if (entry === undefined) return undefined;
  let index = 0;
  return new ReadableStream<string>({
    async pull(controller) {
      while (index === entry.chunks.length && !entry.ended) {
        await new Promise<void>((wake) => entry.waiting.push(wake));
      }
      const chunk = entry.chunks[index++];
      if (chunk === undefined) controller.close();
      else controller.enqueue(chunk);
    },
  });
}

export function stop(id: string): void {
  running.get(id)?.abort.abort();
}

import { unlink } from "node:fs/promises";
import { BackendError, type FailureOutcome } from "@chatstore/core";

const advice: Readonly<Record<string, string>> = {
  EACCES: "this process lacks the permission: let it read and write the folder",
  EDQUOT: "the disk quota is used up: free some space",
  EFBIG: "the file would be larger than this process may write: raise `ulimit -f`",
  EIO: "the disk failed: check it",
  EMFILE: "this process has too many files open: raise `ulimit -n`",
  ENFILE: "this machine has too many files open",
  ENOENT: "it is missing: was the folder removed, or is its disk not mounted?",
  ENOSPC: "the disk is full: free some space",
  ENOTDIR: "a file stands where a folder should be: remove it, or choose another `dir`",
  EPERM: "this process lacks the permission: let it read and write the folder",
  EROFS: "the disk is read-only: mount it writable, or choose another `dir`",
};

/** What may pass by itself: a disk that is away, too. Windows refuses to replace a file while somebody has it open. */
const passing: ReadonlySet<string> = new Set([
  ...["EAGAIN", "EBUSY", "EINTR", "EMFILE", "ENFILE", "ENOENT", "ESTALE", "ETIMEDOUT"],
  ...(process.platform === "win32" ? ["EACCES", "EPERM"] : []),
]);

/** A failure of the file system as a `BackendError`; everything else as it is. */
export function toFailure(error: unknown, path: string, outcome: FailureOutcome): unknown {
  const code = codeOf(error);
  if (code === undefined) return error;
  return new BackendError(`${path}: ${advice[code] ?? (error as Error).message} (${code})`, {
    retryable: passing.has(code),
    outcome,
    cause: error,
  });
}

/** Whether the file system failed in one of these ways. */
export function failedWith(error: unknown, ...codes: readonly string[]): boolean {
  const code = codeOf(error);
  return code !== undefined && codes.includes(code);
}

/** What it returns, or `undefined` when the file system failed in one of these ways. */
export async function unless<T>(
  codes: readonly string[],
  run: () => T | Promise<T>,
): Promise<T | undefined> {
  try {
    return await run();
  } catch (error) {
    if (failedWith(error, ...codes)) return undefined;
    throw error;
  }
}

/** Whether it was done; `false` when the file system refused in one of these ways. */
export async function succeeds(
  refusals: readonly string[],
  run: () => void | Promise<void>,
): Promise<boolean> {
  const done = await unless(refusals, async () => {
    await run();
    return true;
  });
  return done ?? false;
}

/** Returns whether there was one. */
export async function removeFile(path: string): Promise<boolean> {
  return succeeds(["ENOENT"], () => unlink(path));
}

function codeOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !("syscall" in error) || !("code" in error)) return undefined;
  return String(error.code);
}

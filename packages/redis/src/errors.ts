import { BackendError, redact, TimeoutError } from "@chatstore/core";

/** Error replies that say: nothing was done; later it may be. */
const passing =
  /^(LOADING|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|MOVED|ASK|READONLY|BUSY|MISCONF|NOREPLICAS|OOM|ERR max number of clients)\b/;
/** Error replies that say: nothing was done, and it will stay so until somebody changes something. */
const final =
  /^(NOAUTH|WRONGPASS|NOPERM|DENIED|CROSSSLOT|ERR (AUTH|invalid password|unknown command|DB index|SELECT|Client sent AUTH|operation not permitted))/i;
/** What ioredis says when it has not sent a command. */
const unsent = /enableOfflineQueue|None of startup nodes|Failed to refresh slots cache/;
/** What it says when the server keeps silent. */
const late = /^(Socket timeout|Command timed out|connect ETIMEDOUT)/;
/** Codes of failures to connect that no waiting mends: certificates, and TLS against a server without. */
const misconfigured =
  /^(ERR_SSL|ERR_TLS|CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO|HOSTNAME_MISMATCH|EPROTO)/;

/**
 * @param outcome What holds when the error does not tell.
 * @param reason Why there is no connection, when ioredis only says that there is none.
 */
export function toBackendError(
  error: Error & { lastNodeError?: Error; code?: unknown },
  outcome: "not-applied" | "unknown",
  reason?: Error,
): BackendError {
  if (error instanceof BackendError) return error;
  if (error.lastNodeError) return toBackendError(error.lastNodeError, outcome);
  if (unsent.test(error.message)) {
    return toBackendError(reason ?? new Error("there is no connection"), "not-applied");
  }
  if (error.name === "MaxRetriesPerRequestError") {
    // Its advice is about an option that is set here, and says nothing of what happened.
    return new BackendError(
      `Redis failed: the connection broke before the answer came${because(reason)}`,
      {
        retryable: true,
        outcome,
        ...(reason && { cause: withoutSecrets(reason) }),
      },
    );
  }
  const cause = withoutSecrets(error);
  const message = withoutScript(cause.message);
  const text = `${message}${adviceOn(message)}`;
  if (late.test(message))
    return new TimeoutError(`Redis did not answer: ${text}`, { outcome, cause });
  const isFinal = final.test(message) || misconfigured.test(String(error.code ?? ""));
  const isAnswer = final.test(message) || passing.test(message);
  return new BackendError(`Redis failed: ${text}`, {
    // An error reply that nobody knows would come again.
    retryable: !isFinal && (isAnswer || error.name !== "ReplyError"),
    outcome: isAnswer ? "not-applied" : outcome,
    cause,
  });
}

function because(reason: Error | undefined): string {
  return reason === undefined ? "" : `: ${withoutSecrets(reason).message}`;
}

/** Redis 6 wraps the errors of commands that a script calls. */
export function withoutScript(message: string): string {
  return message.replace(/^ERR Error running script .*?: -?(?=[A-Z]+ )/s, "");
}

function adviceOn(message: string): string {
  if (message === "connect ETIMEDOUT") {
    return " (Does the server speak TLS or not, as the URL says with rediss:// or redis://?)";
  }
  if (message.startsWith("NOAUTH")) return " Put the password into the URL.";
  if (message.startsWith("OOM")) return " Raise maxmemory, or set a ttl.";
  if (message.startsWith("Protocol error")) return " (If the server speaks TLS, use rediss://.)";
  if (message.startsWith("MOVED")) return " (For a Redis Cluster, use the option `cluster`.)";
  return "";
}

/** ioredis attaches the command with its arguments to errors, and some servers repeat them: messages, passwords. */
function withoutSecrets(error: Error & { code?: unknown }): Error {
  const bare = new Error(redact(error.message).replace(/, with args beginning with.*/s, ""));
  bare.name = error.name;
  bare.stack = `${bare.name}: ${bare.message}${framesOf(error)}`;
  return error.code === undefined ? bare : Object.assign(bare, { code: error.code });
}

/** A stack without the message, in which a line may look like one of the stack's. */
function framesOf({ message, stack = "" }: Error): string {
  const begin = stack.indexOf(message);
  return begin < 0 ? "" : (/\n {4}at .*/s.exec(stack.slice(begin + message.length))?.[0] ?? "");
}

/** Whether an error is this error reply. */
export function isReply(error: unknown, code: string): boolean {
  return error instanceof Error && error.message.startsWith(code);
}

"use client";
import { useChat } from "@ai-sdk/react";
import { lastAssistantMessageIsCompleteWithApprovalResponses, type UIMessage } from "ai";
import { useState } from "react";

export function Chat({ id, stored }: { readonly id: string; readonly stored: UIMessage[] }) {
  const [text, setText] = useState("");
  const [edited, setEdited] = useState<string>();
  const chat = useChat({
    id,
    messages: stored,
    resume: true, // goes on with an answer that is under way
    sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithApprovalResponses,
  });
  const { messages, status, error } = chat;
  // What this tab shows: a stale one must not cut what it has not seen.
  const seen = { body: { lastMessageId: messages.at(-1)?.id } };
  const isBusy = status === "submitted" || status === "streaming";

  async function send() {
    setText("");
    setEdited(undefined);
    if (edited === undefined) await chat.sendMessage({ text });
    else await chat.sendMessage({ text, messageId: edited }, seen);
  }

  async function stop() {
    await fetch(`/api/chat/${id}/stream`, { method: "DELETE" });
    await chat.stop();
  }

  return (
    <main data-status={status}>
      {messages.map((message) => (
        <p key={message.id} data-role={message.role}>
          <b>{message.role}: </b>
          {message.parts.map((part, index) => (
            <Part
              key={`${message.id}-${index}`}
              part={part}
              decide={chat.addToolApprovalResponse}
            />
          ))}
          {message.role === "user" && (
            <button
              type="button"
              onClick={() => {
                setEdited(message.id);
                setText(
                  message.parts.map((part) => (part.type === "text" ? part.text : "")).join(""),
                );
              }}
            >
              Edit
            </button>
          )}
        </p>
      ))}
      {error && <p role="alert">{error.message}</p>}
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void send();
        }}
      >
        <input
          aria-label="Message"
          value={text}
          onChange={(event) => setText(event.target.value)}
        />
        <button type="submit">Send</button>
        <button type="button" disabled={isBusy} onClick={() => chat.regenerate(seen)}>
          Regenerate
        </button>
        <button type="button" disabled={!isBusy} onClick={() => void stop()}>
          Stop
        </button>
      </form>
    </main>
  );
}

function Part({
  part,
  decide,
}: {
  readonly part: UIMessage["parts"][number];
  readonly decide: (decision: { id: string; approved: boolean }) => unknown;
}) {
  if (part.type === "text") return <span>{part.text}</span>;
  if (!("toolCallId" in part)) return null;
  if (part.state !== "approval-requested") return <i>({part.state}) </i>;
  const { id } = part.approval;
  return (
    <>
      <button type="button" onClick={() => decide({ id, approved: true })}>
        Approve
      </button>
      <button type="button" onClick={() => decide({ id, approved: false })}>
        Deny
      </button>
    </>
  );
}

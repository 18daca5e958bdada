/** The bytes that the raw contestants store: the store's own envelope, and nothing around it but what a row needs. */
import type { Conversation, Message } from "../contestant.js";

export function encode({ role, content }: Message): string {
  return JSON.stringify({ v: 1, role, content });
}

export function decode(row: { readonly id: string; readonly data: string }): Message {
  const message = JSON.parse(row.data);
  message.id = row.id;
  return message;
}

export function keyOf({ user, name }: Conversation): string {
  return `${user}/${name}`;
}

import { redirect } from "next/navigation";

export const dynamic = "force-dynamic";

/** A new conversation has an id from its first moment, and it stays in the address. */
export default function Page(): never {
  redirect(`/chat/${crypto.randomUUID()}`);
}

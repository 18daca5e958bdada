/** Defects of who takes a URL apart: what the error shows, and what is taken for a URL. */
import { InvalidOptionsError } from "@chatstore/core";
import type { Defect } from "./defect.js";

export const urls: Readonly<Record<string, Defect>> = {
  "cites a URL that it cannot read": {
    breaks: "G9",
    url(url) {
      if (!URL.canParse(url)) throw new InvalidOptionsError(`${url} is no URL of an engine`);
      for (const _ of new URL(url).searchParams) throw new InvalidOptionsError("No parameters");
    },
  },

  "keeps what Node says of a wrong URL as cause": {
    breaks: "G9",
    url(url) {
      try {
        new URL(url);
      } catch (cause) {
        throw new InvalidOptionsError("The url is no URL of an engine", { cause });
      }
    },
  },

  "takes any URL that looks like one": {
    breaks: "G9",
    url(url) {
      if (!/^sabotaged:\/\/\S+$/.test(url)) throw new InvalidOptionsError("The url is none");
    },
  },

  "makes a text of whatever it is given": {
    breaks: "API",
    options: (options) => ({ ...options, path: `${options.path}` }),
  },
};

"""Instructions on the form of an answer, in English and eleven more languages: they say nothing about the video.

Each pattern is a sentence that opens with a word for answering or choosing and speaks of the answer, its letter or its
length. :mod:`tam_plugin.inductor.text` takes such sentences out of a query.
"""

from __future__ import annotations

import re

_REST = r"[^.!?:\n。！？：؟।]{0,140}"
_END = r"\s*[.:。：।!！]?"

_ENGLISH = (
    r"(?:please\s+)?(?:answer|respond|reply)(?:\s+(?:to\s+)?(?:the|this|my)\s+question)?\s+"
    rf"(?:with|using|by|in|directly|concisely|briefly|shortly|only)\b{_REST}",
    r"(?:please\s+)?(?:select|choose|pick|give|provide|output|return|indicate|only\s+give)\s+(?:only\s+|me\s+)?"
    r"(?:the\s+|a\s+|your\s+)?(?:single\s+)?(?:best|correct|right|short|brief|one-word|most\s+\w+)?\s*"
    rf"(?:option|choice|answer|response|letter)s?\b{_REST}",
    rf"(?:please\s+)?(?:only\s+)?(?:output|return|write|reply|respond)\s+(?:only|with|just)\b{_REST}",
    r"(?:the\s+)?(?:best|correct)\s+(?:answer|option)\s+is\s*:?\s*\(?$",
    rf"your\s+(?:answer|response)\s+should\s+be{_REST}",
    rf"(?:please\s+)?(?:keep|make)\s+(?:the|your)\s+answer\s+(?:short|brief|concise){_REST}",
    r"(?:use|using)\s+(?:a\s+single|one|short|few)\s+words?(?:\s+or\s+(?:a\s+)?(?:short\s+)?phrase)?(?=\s*(?:[.!]|$))",
    r"answer\s*:\s*\(?$",
)
_OTHERS = (
    # Chinese
    rf"请?(?:直接|只|仅|简短地?|简要地?)?(?:用|以)[^。！？：:，,\n]{{0,16}}(?:回答|作答){_END}",
    rf"请?(?:直接|只需?|仅需?|简短地?|简要地?|简洁地?)(?:回答|作答|输出|给出|回复)[^。！？：:，,\n]{{0,12}}{_END}",
    rf"请?(?:从选项中)?(?:选择|选出|输出|给出)(?:唯一)?(?:正确|最佳|合适)的?(?:答案|选项)(?:的?字母)?{_END}",
    # Spanish, Portuguese, Italian, French, German
    rf"(?:por favor,?\s+)?(?:responde|contesta|responda|conteste)\s+(?:a la pregunta\s+)?"
    rf"(?:sol[oa]|sólo|únicamente|solamente|con|en|usando|brevemente|directamente)\b{_REST}{_END}",
    rf"(?:elige|elija|selecciona|seleccione|escoge|marca)\s+(?:la|una)\s+"
    rf"(?:opción|respuesta|alternativa)\s+correcta{_END}",
    rf"(?:por favor,?\s+)?respond[ae]\s+(?:à pergunta\s+)?"
    rf"(?:só|somente|apenas|com|em|numa|usando|brevemente|diretamente)\b{_REST}{_END}",
    rf"(?:escolha|selecione|assinale|marque)\s+a\s+(?:alternativa|opção|resposta)\s+(?:correta|certa){_END}",
    rf"(?:per favore,?\s+)?rispond(?:i|ete|a)\s+(?:alla domanda\s+)?"
    rf"(?:solo|soltanto|unicamente|con|in|brevemente|direttamente)\b{_REST}{_END}",
    rf"(?:scegli|scegliete|seleziona)\s+(?:la|una)\s+(?:risposta|opzione)\s+(?:giusta|corretta|esatta){_END}",
    rf"répond(?:s|ez)\s+(?:à la question\s+)?"
    rf"(?:uniquement|seulement|directement|brièvement|en|par|avec)\b{_REST}{_END}",
    rf"(?:choisis|choisissez|sélectionne|sélectionnez)\s+la\s+(?:bonne|meilleure)\s+(?:réponse|option){_END}",
    rf"(?:bitte\s+)?(?:antworte|antworten sie|beantworte die frage|beantworten sie die frage)\s+"
    rf"(?:bitte\s+)?(?:nur|mit|in|kurz|knapp|direkt)\b{_REST}{_END}",
    rf"(?:wähle|wählen sie)\s+(?:bitte\s+)?die\s+(?:richtige|beste|korrekte)\s+(?:antwort|option)(?:\s+aus)?{_END}",
    # Russian
    rf"(?:пожалуйста,?\s+)?(?:ответь|ответьте|отвечай|отвечайте)\s+(?:на вопрос\s+)?"
    rf"(?:только|лишь|одним|одной|буквой|кратко|коротко)\b{_REST}{_END}",
    rf"(?:выбери|выберите|укажи|укажите|отметь|отметьте)\s+(?:верный|правильный|лучший)\s+(?:вариант|ответ){_END}",
    # Japanese, Korean
    rf"(?:選択肢の)?(?:記号|番号|アルファベット|文字|一言|一語|一単語|数字|短く|簡潔に)(?:のみ|だけ)?で?"
    rf"(?:お?答え|回答し?)(?:て(?:ください|下さい)?|なさい|せよ)?{_END}",
    rf"正しいもの(?:を|の記号を)(?:一つ)?選(?:び、?(?:アルファベット|記号)で答え)?(?:びなさい|んでください|なさい)?{_END}",
    r"(?:보기의\s*)?(?:기호|번호|알파벳|한\s*단어|한\s*마디|짧게|간단히|간단하게)(?:로만|로|만)?\s*"
    rf"(?:답|대답)(?:하세요|하시오|해\s*주세요|해줘|해|할 것)?{_END}",
    rf"(?:알맞은|옳은|맞는|올바른)\s*(?:답|선택지)[을를]\s*(?:고르세요|고르시오|선택하세요|선택하시오){_END}",
    # Arabic, Hindi
    rf"(?:من فضلك\s+)?(?:أجب|اجب|جاوب)\s+(?:ب\S+|فقط){_REST}{_END}",
    rf"(?:اختر|حدد)\s+(?:الإجابة|الاجابة|الخيار)\s+(?:الصحيحة|الصحيح|المناسب){_END}",
    r"(?:कृपया\s+)?(?:केवल|सिर्फ़|सिर्फ|बस)?\s*(?:अक्षर|एक शब्द|संक्षेप|विकल्प के अक्षर)\s*(?:में|से)\s*(?:ही\s*)?"
    rf"(?:उत्तर|जवाब)\s*(?:दें|दो|दीजिए){_END}",
    rf"सही\s+(?:विकल्प|उत्तर)\s+(?:चुनिए|चुनें|चुनो){_END}",
)
INSTRUCTIONS = re.compile("|".join((*_ENGLISH, *_OTHERS)), re.IGNORECASE | re.MULTILINE)
"""An instruction, wherever it stands; the caller checks that it opens a sentence."""
SENTENCE_START = re.compile(r"(?:^|[.!?:;\n)\]\"'。！？：；؟।])\s*$")
"""Matches the text before the start of a sentence."""
OPTION_HEADING = re.compile(
    r"(?im)(?<![\w,])(?:options|choices|answer choices|candidates|选项|選択肢|opciones|optionen|choix|opções|opzioni|"
    r"варианты(?: ответа)?|보기|선택지|الخيارات|विकल्प)\s*[:：]\s*$"
)
"""The line above written answer options."""
ROLE = re.compile(
    r"^\s*(?:question|query|q|问题|pregunta|質問|問|frage|pergunta|вопрос|질문|문제|سؤال|السؤال|प्रश्न|domanda)\s*[:：]\s*",
    re.IGNORECASE,
)
"""The word "question" before a question."""

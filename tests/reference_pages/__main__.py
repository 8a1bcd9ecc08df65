from tests.reference_pages import pages

for path, text, anew in pages():
    if anew != text:
        path.write_text(anew, encoding="utf-8")
        print(path)
